use std::io::Write;
fn main() -> anyhow::Result<()> {
    let p = std::env::args().nth(1).unwrap();
    for _ in 0..2 {
        let _ = std::fs::metadata("/MARK");
        write_atomically::write_atomically(&p, |w| { writeln!(w, "hello")?; Ok(()) })?;
    }
    let _ = std::fs::metadata("/MARK");
    Ok(())
}

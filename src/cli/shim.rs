use std::fs;
use std::io;
use std::path::Path;
use write_atomically::WriteOptions;
pub trait Shim {
    fn write_path<T, E: From<io::Error>>(
        &self,
        p: &Path,
        f: impl FnOnce(&Path) -> Result<T, E>,
    ) -> Result<T, E>;
    fn write_dir<T, E: From<io::Error>>(
        &self,
        p: &Path,
        f: impl FnOnce(&Path) -> Result<T, E>,
    ) -> Result<T, E>;
}
impl Shim for WriteOptions {
    fn write_path<T, E: From<io::Error>>(
        &self,
        p: &Path,
        f: impl FnOnce(&Path) -> Result<T, E>,
    ) -> Result<T, E> {
        let staged = p.with_file_name(format!(".shim.{}", p.file_name().unwrap().display()));
        let r = f(&staged);
        if r.is_ok() {
            fs::rename(&staged, p)?;
        } else {
            let _ = fs::remove_file(&staged);
        }
        r
    }
    fn write_dir<T, E: From<io::Error>>(
        &self,
        p: &Path,
        f: impl FnOnce(&Path) -> Result<T, E>,
    ) -> Result<T, E> {
        let staged = p.with_file_name(format!(".shim.{}", p.file_name().unwrap().display()));
        fs::create_dir(&staged)?;
        let r = f(&staged);
        if r.is_ok() {
            let _ = fs::remove_dir_all(p);
            fs::rename(&staged, p)?;
        } else {
            let _ = fs::remove_dir_all(&staged);
        }
        r
    }
}

use std::fs;
use std::io;
use std::path::Path;
use write_atomically::{WriteOptions, Writer};
pub type Reader = fs::File;
pub trait Shim {
    fn write_if_missing<T, E: From<io::Error>>(
        &self,
        p: &Path,
        f: impl FnOnce(&mut Writer) -> Result<T, E>,
    ) -> Result<Option<T>, E>;
    fn write_if_changed<T, E: From<io::Error>>(
        &self,
        p: &Path,
        f: impl FnOnce(&mut Writer) -> Result<T, E>,
    ) -> Result<T, E>;
    fn update<T, E: From<io::Error>>(
        &self,
        p: &Path,
        f: impl FnOnce(Option<&mut Reader>, &mut Writer) -> Result<T, E>,
    ) -> Result<T, E>;
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
    fn write_if_missing<T, E: From<io::Error>>(
        &self,
        p: &Path,
        f: impl FnOnce(&mut Writer) -> Result<T, E>,
    ) -> Result<Option<T>, E> {
        if p.exists() {
            return Ok(None);
        }
        self.create(p, f).map(Some)
    }
    fn write_if_changed<T, E: From<io::Error>>(
        &self,
        p: &Path,
        f: impl FnOnce(&mut Writer) -> Result<T, E>,
    ) -> Result<T, E> {
        self.write(p, f)
    }
    fn update<T, E: From<io::Error>>(
        &self,
        p: &Path,
        f: impl FnOnce(Option<&mut Reader>, &mut Writer) -> Result<T, E>,
    ) -> Result<T, E> {
        let mut old = fs::File::open(p).ok();
        self.write(p, |w| f(old.as_mut(), w))
    }
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

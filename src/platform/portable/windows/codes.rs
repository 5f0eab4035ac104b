//! The numbers of Windows' headers, which `std` takes and returns.

use std::io;

// winnt.h, winbase.h: CreateFileW's arguments.
const FILE_LIST_DIRECTORY: u32 = 0x1;
const FILE_ADD_FILE: u32 = 0x2;
const FILE_READ_ATTRIBUTES: u32 = 0x80;
pub(super) const DELETE: u32 = 0x1_0000;
const SYNCHRONIZE: u32 = 0x10_0000;
pub(super) const GENERIC_WRITE: u32 = 0x4000_0000;
pub(super) const GENERIC_READ: u32 = 0x8000_0000;
pub(super) const FILE_SHARE_READ: u32 = 0x1;
const FILE_SHARE_WRITE: u32 = 0x2;
pub(super) const FILE_SHARE_DELETE: u32 = 0x4;
pub(super) const FILE_ATTRIBUTE_HIDDEN: u32 = 0x2;
pub(super) const FILE_ATTRIBUTE_TEMPORARY: u32 = 0x100;
pub(super) const FILE_FLAG_OPEN_REPARSE_POINT: u32 = 0x20_0000;
pub(super) const FILE_FLAG_BACKUP_SEMANTICS: u32 = 0x200_0000;
pub(super) const FILE_FLAG_DELETE_ON_CLOSE: u32 = 0x400_0000;

/// Access that others cannot refuse by what they share.
pub(super) const REFERENCE: u32 = FILE_READ_ATTRIBUTES | SYNCHRONIZE;
/// What FlushFileBuffers asks for a directory.
pub(super) const LIST_AND_ADD: u32 = FILE_LIST_DIRECTORY | FILE_ADD_FILE;
pub(super) const SHARE_ALL_BUT_REMOVAL: u32 = FILE_SHARE_READ | FILE_SHARE_WRITE;
pub(super) const SHARE_ALL: u32 = SHARE_ALL_BUT_REMOVAL | FILE_SHARE_DELETE;

// winerror.h
pub(super) const ERROR_INVALID_FUNCTION: i32 = 1;
pub(super) const ERROR_FILE_NOT_FOUND: i32 = 2;
pub(super) const ERROR_ACCESS_DENIED: i32 = 5;
const ERROR_INVALID_HANDLE: i32 = 6;
pub(super) const ERROR_SHARING_VIOLATION: i32 = 32;
pub(super) const ERROR_LOCK_VIOLATION: i32 = 33;
pub(super) const ERROR_NOT_SUPPORTED: i32 = 50;
pub(super) const ERROR_FILE_EXISTS: i32 = 80;
pub(super) const ERROR_INVALID_PARAMETER: i32 = 87;
pub(super) const ERROR_CALL_NOT_IMPLEMENTED: i32 = 120;
pub(super) const ERROR_INVALID_NAME: i32 = 123;
pub(super) const ERROR_BUSY: i32 = 170;
pub(super) const ERROR_DIRECTORY: i32 = 267;
pub(super) const ERROR_DIRECTORY_NOT_SUPPORTED: i32 = 336;
pub(super) const ERROR_POSSIBLE_DEADLOCK: i32 = 1131;
pub(super) const ERROR_CANT_RESOLVE_FILENAME: i32 = 1921;

/// FlushFileBuffers: the device, the filesystem or the server has no way to sync this.
pub(super) const NO_SYNC: [i32; 5] = [
    ERROR_INVALID_FUNCTION,
    ERROR_ACCESS_DENIED,
    ERROR_INVALID_HANDLE,
    ERROR_NOT_SUPPORTED,
    ERROR_INVALID_PARAMETER,
];

pub(super) fn is_any(error: &io::Error, codes: &[i32]) -> bool {
    error.raw_os_error().is_some_and(|code| codes.contains(&code))
}

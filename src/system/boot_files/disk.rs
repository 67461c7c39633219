//! The card as a block device.

use rustix::fs::{Mode, OFlags, open};
use std::fs::File;
use std::io::{Error, ErrorKind, Result};
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Size of a sector, in bytes. Offsets and lengths are multiples of it.
pub const SECTOR: usize = 512;

/// Size of the largest transfer, in bytes.
const CHUNK: usize = 1 << 20;

/// Alignment in memory that O_DIRECT may require, in bytes.
const ALIGNMENT: usize = 4096;

/// A device that is read and written in whole sectors.
pub trait Disk {
    /// Reads sectors, starting at the byte `offset`.
    ///
    /// # Errors
    ///
    /// The device cannot be read, or ends before the last sector.
    fn read(&mut self, offset: u64, bytes: &mut [u8]) -> Result<()>;

    /// Writes sectors, starting at the byte `offset`. They are persistent after [`Disk::flush`].
    ///
    /// # Errors
    ///
    /// The device cannot be written, or ends before the last sector.
    fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<()>;

    /// Waits until everything written is persistent.
    ///
    /// # Errors
    ///
    /// The device failed.
    fn flush(&mut self) -> Result<()>;
}

/// Reads `length` bytes.
pub fn read(disk: &mut dyn Disk, offset: u64, length: usize) -> Result<Vec<u8>> {
    let mut bytes = vec![0; length];
    disk.read(offset, &mut bytes)?;
    Ok(bytes)
}

/// Reads one sector.
pub fn read_sector(disk: &mut dyn Disk, offset: u64) -> Result<[u8; SECTOR]> {
    let mut bytes = [0; SECTOR];
    disk.read(offset, &mut bytes)?;
    Ok(bytes)
}

/// Writes one sector, and waits until it is persistent. Reads it back, because a worn card can
/// report success without having written anything.
pub fn write_verified(disk: &mut dyn Disk, offset: u64, bytes: &[u8]) -> Result<()> {
    disk.write(offset, bytes)?;
    disk.flush()?;
    match read(disk, offset, bytes.len())? == bytes {
        true => Ok(()),
        false => Err(Error::other("the card did not keep the data that was written")),
    }
}

/// A block device, or a file in its place. Transfers bypass the page cache (O_DIRECT): the kernel
/// caches the whole device and its partitions separately, so cached data may be out of date.
pub struct BlockDevice {
    file: File,
    buffer: Vec<u8>,
}

impl BlockDevice {
    /// Opens the device.
    ///
    /// # Errors
    ///
    /// It does not exist, or this process may not write to it.
    pub fn open(path: &Path) -> Result<BlockDevice> {
        let flags = OFlags::RDWR | OFlags::CLOEXEC;
        let file = match open(path, flags | OFlags::DIRECT, Mode::empty()) {
            // Some file systems do not support O_DIRECT.
            Err(rustix::io::Errno::INVAL) => open(path, flags, Mode::empty()),
            file => file,
        };
        Ok(BlockDevice { file: File::from(file?), buffer: vec![0; CHUNK + ALIGNMENT] })
    }

    /// Returns the part of the buffer with the required alignment.
    fn aligned(buffer: &mut [u8]) -> &mut [u8] {
        let start = buffer.as_ptr().align_offset(ALIGNMENT).min(ALIGNMENT);
        &mut buffer[start..start + CHUNK]
    }
}

impl Disk for BlockDevice {
    fn read(&mut self, offset: u64, bytes: &mut [u8]) -> Result<()> {
        check(offset, bytes.len())?;
        let buffer = BlockDevice::aligned(&mut self.buffer);
        let mut at = offset;
        for part in bytes.chunks_mut(CHUNK) {
            let buffer = &mut buffer[..part.len()];
            self.file.read_exact_at(buffer, at)?;
            part.copy_from_slice(buffer);
            at += part.len() as u64;
        }
        Ok(())
    }

    fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<()> {
        check(offset, bytes.len())?;
        let buffer = BlockDevice::aligned(&mut self.buffer);
        let mut at = offset;
        for part in bytes.chunks(CHUNK) {
            let buffer = &mut buffer[..part.len()];
            buffer.copy_from_slice(part);
            self.file.write_all_at(buffer, at)?;
            at += part.len() as u64;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        self.file.sync_data()
    }
}

fn check(offset: u64, length: usize) -> Result<()> {
    let whole = offset.is_multiple_of(SECTOR as u64) && length.is_multiple_of(SECTOR);
    if whole { Ok(()) } else { Err(Error::from(ErrorKind::InvalidInput)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transfers_whole_sectors_of_any_number() {
        let path = std::env::temp_dir().join(format!("berrymse-disk-{}", std::process::id()));
        std::fs::write(&path, vec![0; 3 * CHUNK]).unwrap();
        let mut disk = BlockDevice::open(&path).unwrap();
        let bytes: Vec<u8> = (0..CHUNK + 3 * SECTOR).map(|n| (n % 251) as u8).collect();
        disk.write(SECTOR as u64, &bytes).unwrap();
        disk.flush().unwrap();
        assert_eq!(read(&mut disk, SECTOR as u64, bytes.len()).unwrap(), bytes);
        assert_eq!(read_sector(&mut disk, 0).unwrap(), [0; SECTOR]);
        assert!(disk.write(1, &bytes[..SECTOR]).is_err());
        assert!(disk.write(0, &bytes[..100]).is_err());
        assert!(read(&mut disk, 3 * CHUNK as u64, SECTOR).is_err());
        std::fs::remove_file(path).unwrap();
    }
}

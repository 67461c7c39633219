//! The master boot record (sector 0) and the layout of the card. Pure.
//!
//! ```text
//! offset  440: disk signature (4 bytes)
//!         446: four entries of 16 bytes
//!         510: 55 aa
//! entry     4: type · 8: first sector (4 bytes) · 12: number of sectors (4 bytes), little-endian
//! ```
//!
//! Entry 1 is the boot partition. It starts at one of two halves; the other half has no entry.

use crate::system::boot_files::disk::SECTOR;
use crate::system::boot_files::error::BootFilesError;

/// Offset of the first entry.
const ENTRIES: usize = 446;

/// Size of an entry.
const ENTRY: usize = 16;

/// Type of a FAT partition with logical block addresses, which the firmware requires.
const FAT_LBA: u8 = 0x0c;

/// Sectors per MiB.
const MIB: u64 = (1 << 20) / SECTOR as u64;

/// The parts of the card that updates of the boot files use, in sectors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    /// First sector of each half.
    pub halves: [u64; 2],
    /// Size of a half.
    pub size: u64,
    /// Copy of the boot record from before the last switch.
    pub former: u64,
}

impl Layout {
    /// Parses `appliance/layout`: a line `NAME PARTITION TYPE START SIZE` for each area, in MiB.
    ///
    /// # Errors
    ///
    /// Areas are missing, or the halves have different sizes.
    pub fn parse(text: &str) -> Result<Layout, BootFilesError> {
        let area = |name: &str| {
            let line = text.lines().find(|line| line.split_whitespace().next() == Some(name))?;
            let mut numbers = line.split_whitespace().skip(3).map(|word| word.parse::<u64>().ok());
            let (start, size) = (numbers.next()??, numbers.next()??);
            (start < 1 << 20 && size < 1 << 10).then_some((start * MIB, size * MIB))
        };
        let (Some(first), Some(second), Some((former, _))) =
            (area("boot"), area("boot-2"), area("former"))
        else {
            return Err(BootFilesError::Layout("an area is missing"));
        };
        if first.1 != second.1 || first.1 == 0 || second.0 < first.0 + first.1 {
            return Err(BootFilesError::Layout("the halves do not fit each other"));
        }
        Ok(Layout { halves: [first.0, second.0], size: first.1, former })
    }

    /// Returns the offset of a half, in bytes.
    pub fn offset(&self, half: usize) -> u64 {
        self.halves[half] * SECTOR as u64
    }

    /// Returns the size of a half, in bytes.
    pub fn bytes(&self) -> u64 {
        self.size * SECTOR as u64
    }

    /// Returns the offset of the copy of the former boot record, in bytes.
    pub fn former_offset(&self) -> u64 {
        self.former * SECTOR as u64
    }
}

/// A boot record with the boot partition in one of the two halves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BootRecord {
    bytes: [u8; SECTOR],
    /// The half in which the boot partition starts.
    pub half: usize,
    /// Size of the boot partition, in sectors. 64 MiB on cards from before there were two halves.
    pub sectors: u64,
}

impl BootRecord {
    /// Parses sector 0.
    ///
    /// # Errors
    ///
    /// The boot partition is not a FAT partition at the start of a half, or another partition
    /// overlaps a half.
    pub fn parse(bytes: &[u8; SECTOR], layout: &Layout) -> Result<BootRecord, BootFilesError> {
        if bytes[510..] != [0x55, 0xaa] {
            return Err(BootFilesError::Partitions("sector 0 has no partition table"));
        }
        let (kind, start, sectors) = entry(bytes, 0);
        let Some(half) = layout.halves.iter().position(|half| *half == start) else {
            return Err(BootFilesError::Partitions("the first partition starts elsewhere"));
        };
        if kind != FAT_LBA {
            return Err(BootFilesError::Partitions("the first partition has another type"));
        }
        let end = layout.halves[1] + layout.size;
        // Twice the size: cards from before there were two halves.
        if sectors == 0 || sectors > 2 * layout.size {
            return Err(BootFilesError::Partitions("the first partition has another size"));
        }
        for number in 1..4 {
            let (kind, start, sectors) = entry(bytes, number);
            let overlaps = start < end && start + sectors > layout.halves[0];
            if kind != 0 && sectors != 0 && overlaps {
                return Err(BootFilesError::Partitions("partitions overlap"));
            }
        }
        Ok(BootRecord { bytes: *bytes, half, sectors })
    }

    /// Returns the sector.
    pub fn bytes(&self) -> &[u8; SECTOR] {
        &self.bytes
    }

    /// Returns the sector with the boot partition in the other half. Only the start and the size in
    /// entry 1 change. (The CHS fields are not used: all readers use logical block addresses.)
    pub fn switched(&self, layout: &Layout) -> [u8; SECTOR] {
        let mut bytes = self.bytes;
        let start = layout.halves[1 - self.half] as u32;
        bytes[ENTRIES + 8..ENTRIES + 12].copy_from_slice(&start.to_le_bytes());
        bytes[ENTRIES + 12..ENTRIES + 16].copy_from_slice(&(layout.size as u32).to_le_bytes());
        bytes
    }
}

/// Returns type, first sector and number of sectors of an entry.
fn entry(bytes: &[u8; SECTOR], number: usize) -> (u8, u64, u64) {
    let entry = &bytes[ENTRIES + number * ENTRY..][..ENTRY];
    let word = |at: usize| {
        u64::from(u32::from_le_bytes([entry[at], entry[at + 1], entry[at + 2], entry[at + 3]]))
    };
    (entry[4], word(8), word(12))
}

/// The copy of the former boot record: the record itself, and in the sector after it its CRC-32
/// (as in zlib, little-endian) and its length. `appliance/boot.cmd` checks both the CRC and the disk
/// signature before it writes the copy to sector 0.
pub fn former(record: &[u8; SECTOR]) -> [u8; 2 * SECTOR] {
    let mut bytes = [0; 2 * SECTOR];
    bytes[..SECTOR].copy_from_slice(record);
    bytes[SECTOR..SECTOR + 4].copy_from_slice(&crc32(record).to_le_bytes());
    bytes[SECTOR + 4..SECTOR + 8].copy_from_slice(&(SECTOR as u32).to_le_bytes());
    bytes
}

/// CRC-32 as in zlib and in U-Boot's `crc32` command.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            (crc >> 1) ^ (0xedb8_8320 & 0u32.wrapping_sub(crc & 1))
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::system::boot_files::simulation::record;
    use proptest::prelude::*;

    const LAYOUT: &str = include_str!("../../../appliance/layout");

    fn layout() -> Layout {
        Layout::parse(LAYOUT).unwrap()
    }

    #[test]
    fn reads_the_layout_of_the_card() {
        let found = Layout { halves: [12 * 2048, 44 * 2048], size: 32 * 2048, former: 10 * 2048 };
        assert_eq!(layout(), found);
        for text in ["", "boot 1 c 12 32", "boot 1 c 12 x\nboot-2 - - 44 32\nformer - - 10 1"] {
            assert!(Layout::parse(text).is_err(), "{text}");
        }
        assert!(Layout::parse(&LAYOUT.replace("44     32", "44     31")).is_err());
        assert!(Layout::parse(&LAYOUT.replace("44     32", "43     32")).is_err());
    }

    #[test]
    fn switches_between_the_halves_by_one_byte() {
        let layout = layout();
        let first = record(12, 32);
        let second = BootRecord::parse(&first, &layout).unwrap().switched(&layout);
        let changed = |a: &[u8], b: &[u8]| -> Vec<usize> {
            (0..SECTOR).filter(|&at| a[at] != b[at]).collect()
        };
        assert_eq!(changed(&first, &second), [0x1c8]);
        assert_eq!(second, record(44, 32));
        let back = BootRecord::parse(&second, &layout).unwrap().switched(&layout);
        assert_eq!(back, first);
        // A card from before there were two halves: one byte of the size changes, too.
        let old = record(12, 64);
        let migrated = BootRecord::parse(&old, &layout).unwrap().switched(&layout);
        assert_eq!(changed(&old, &migrated), [0x1c8, 0x1cc]);
        assert_eq!(migrated, second);
        // Even a mixture of both sectors is valid.
        for torn in 0..=SECTOR {
            let mut mixed = old;
            mixed[..torn].copy_from_slice(&migrated[..torn]);
            let half = BootRecord::parse(&mixed, &layout).unwrap().half;
            assert_eq!(half, usize::from(torn > 0x1c8), "{torn}");
        }
    }

    #[test]
    fn rejects_other_partition_tables() {
        let layout = layout();
        let rejects = |change: &dyn Fn(&mut [u8; SECTOR])| {
            let mut bytes = record(12, 32);
            change(&mut bytes);
            BootRecord::parse(&bytes, &layout).is_err()
        };
        assert!(!rejects(&|_| {}));
        assert!(rejects(&|bytes| bytes[511] = 0));
        assert!(rejects(&|bytes| bytes[ENTRIES + 4] = 0x0e));
        assert!(rejects(&|bytes| bytes[ENTRIES + 8] = 1));
        assert!(rejects(&|bytes| bytes[ENTRIES + 12..ENTRIES + 16].fill(0)));
        assert!(rejects(&|bytes| bytes[ENTRIES + 12..ENTRIES + 16].fill(0xff)));
        // Another partition in the second half.
        assert!(rejects(
            &|bytes| bytes[ENTRIES + 16 + 8..][..4].copy_from_slice(&(50u32 * 2048).to_le_bytes())
        ));
    }

    #[test]
    fn computes_the_checksum_of_zlib() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
        // What appliance/boot.cmd uses to detect the byte order.
        assert_eq!(crc32(&[0]), 0xd202_ef8d);
        let former = former(&record(12, 64));
        assert_eq!(former[..SECTOR], record(12, 64));
        assert_eq!(former[SECTOR + 4..SECTOR + 8], [0, 2, 0, 0]);
        // An empty area is not a valid copy.
        assert_ne!(crc32(&[0; SECTOR]), 0);
    }

    proptest! {
        #[test]
        fn any_sector_is_either_rejected_or_switched_back_and_forth(
            noise in prop::collection::vec(any::<u8>(), SECTOR),
            half in 0..2u32,
        ) {
            let layout = layout();
            let mut bytes: [u8; SECTOR] = noise.try_into().unwrap();
            let _ = BootRecord::parse(&bytes, &layout);
            // A valid table with anything else around it.
            bytes[ENTRIES..].copy_from_slice(&record(12 + 32 * half, 32)[ENTRIES..]);
            let parsed = BootRecord::parse(&bytes, &layout).unwrap();
            let other = BootRecord::parse(&parsed.switched(&layout), &layout).unwrap();
            prop_assert_eq!(other.half, 1 - parsed.half);
            prop_assert_eq!(other.switched(&layout), bytes);
            // boot.cmd compares the disk signature.
            prop_assert_eq!(&other.bytes()[..ENTRIES], &bytes[..ENTRIES]);
        }
    }
}

//! Fragmented MP4, as viewers receive it.

use mp4_atom::{Decode, Moof, Moov};

/// One `moof` with its `mdat`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame {
    pub sequence: u32,
    pub decode_time: u64,
    pub duration: u64,
    pub key: bool,
    /// Size of the picture, in bytes.
    pub size: usize,
}

/// Splits a file into boxes: the name and the whole box, header included.
fn boxes(mut file: &[u8]) -> Vec<(String, &[u8])> {
    let mut boxes = vec![];
    while !file.is_empty() {
        let size = u32::from_be_bytes(file[..4].try_into().unwrap()) as usize;
        assert!((8..=file.len()).contains(&size), "a box of {size} bytes; {} left", file.len());
        let (this, rest) = file.split_at(size);
        boxes.push((String::from_utf8_lossy(&this[4..8]).into_owned(), this));
        file = rest;
    }
    boxes
}

/// Decodes a box with mp4-atom. Panics if bytes are left over.
fn atom<T: Decode>(mut bytes: &[u8]) -> T {
    let atom = T::decode(&mut bytes).unwrap();
    assert!(bytes.is_empty());
    atom
}

/// Parses `moof`, `mdat`, `moof`, `mdat`, …
pub fn frames(file: &[u8]) -> Vec<Frame> {
    let boxes = boxes(file);
    let pairs = boxes.chunks(2).map(|pair| match pair {
        [(first, moof), (second, mdat)] if first == "moof" && second == "mdat" => {
            let size = mdat.len() - 8;
            let moof_len = moof.len();
            let moof: Moof = atom(moof);
            let [traf] = &moof.traf[..] else { panic!("{} tracks", moof.traf.len()) };
            let [trun] = &traf.trun[..] else { panic!("{} runs", traf.trun.len()) };
            let samples: Vec<_> = trun.samples.iter().collect();
            let [sample] = &samples[..] else { panic!("{} samples", samples.len()) };
            assert!(traf.tfhd.default_base_is_moof);
            assert_eq!(trun.data_offset, Some(moof_len as i32 + 8));
            assert_eq!(sample.size, Some(size as u32));
            let flags = sample.flags.or(traf.tfhd.default_sample_flags).unwrap();
            let duration = sample.duration.or(traf.tfhd.default_sample_duration).unwrap();
            Frame {
                sequence: moof.mfhd.sequence_number,
                decode_time: traf.tfdt.as_ref().unwrap().base_media_decode_time,
                duration: duration.into(),
                key: flags & 0x0001_0000 == 0, // sample_is_non_sync_sample
                size,
            }
        }
        other => panic!("{:?}", other.iter().map(|(name, _)| name).collect::<Vec<_>>()),
    });
    pairs.collect()
}

/// Splits a file or message that begins with an init segment into its `moov` and the rest.
pub fn split_init(file: &[u8]) -> (Moov, &[u8]) {
    let boxes = boxes(file);
    let [(first, ftyp), (second, moov), ..] = &boxes[..] else { panic!("no init segment") };
    assert_eq!((first.as_str(), second.as_str()), ("ftyp", "moov"));
    let _: mp4_atom::Ftyp = atom(ftyp);
    (atom(moov), &file[ftyp.len() + moov.len()..])
}

/// Asserts that sequence numbers and decode times have no gaps and never go back.
pub fn assert_even(frames: &[Frame]) {
    for pair in frames.windows(2) {
        assert_eq!(pair[0].sequence + 1, pair[1].sequence, "{pair:?}");
        assert_eq!(pair[0].decode_time + pair[0].duration, pair[1].decode_time, "{pair:?}");
    }
}

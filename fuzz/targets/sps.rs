//! A sequence parameter set, whatever the camera makes of it, on its way to browsers.
//!
//! Holds to be true, where the SPS can be parsed at all:
//! - the SPS for browsers parses again, and means the same but for the restriction fields;
//! - where the restriction was missing, it says that nothing is reordered; where it was there, not
//!   a byte changes; rewriting a second time changes nothing;
//! - it has no start code in it and does not end in a zero, so it can stand in a byte stream;
//! - with a PPS it makes parameter sets, or an error in words; with those, an init segment.
//!
//! Input: an SPS NAL unit, header byte first.

#![no_main]

use berrymse::fmp4::{SampleEntry, init_segment};
use berrymse::h264::annexb::{start_code, trim_zeros};
use berrymse::h264::params::{parse_sps, restrict_reordering};
use berrymse::h264::{Params, nal_type};
use h264_reader::nal::sps::{BitstreamRestrictions, SeqParameterSet, VuiParameters};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    // Nothing else comes out of a byte stream: no start code inside, no zero at the end.
    let end = trim_zeros(data, 0, start_code(data, 0).unwrap_or(data.len()));
    let nal = &data[..end];
    let mut params = Params::default();
    let _ = params.put_pps(nal);
    let Ok(sps) = parse_sps(nal) else {
        assert!(params.put_sps(nal).is_err());
        return;
    };

    let rewritten = restrict_reordering(nal, &sps);
    assert!(start_code(&rewritten, 0).is_none(), "a start code in {rewritten:02x?}");
    assert_ne!(rewritten.last(), Some(&0));
    let again = parse_sps(&rewritten).expect("what was rewritten parses");
    assert_eq!(restrict_reordering(&rewritten, &again), rewritten, "a second time");
    let (had, plain) = take_restriction(sps.clone());
    let (has, plain_again) = take_restriction(again);
    assert_eq!(plain_again, plain, "more than the restriction has changed");
    if had.is_some() || rewritten == nal {
        assert_eq!((&rewritten[..], &has), (nal, &had));
    } else {
        let has = has.expect("rewritten to have a restriction");
        assert_eq!(
            (has.max_num_reorder_frames, has.max_dec_frame_buffering),
            (0, sps.max_num_ref_frames)
        );
    }

    params.put_sps(nal).expect("it was parsed before");
    params.put_pps(&pps(sps.seq_parameter_set_id.id())).expect("a plain PPS");
    match params.activate(0) {
        Ok(sets) => {
            assert_eq!((&sets.sps[..], &sets.browser_sps), (nal, &rewritten));
            assert!(sets.width > 0 && sets.height > 0);
            assert!(sets.framerate.is_none_or(|rate| rate.is_normal() && rate > 0.0));
            assert!(sets.codec.is_ascii() && sets.codec.len() == "avc1.640028".len());
            let init = init_segment(&sets, SampleEntry::Avc1);
            assert!(init.windows(rewritten.len()).any(|part| part == rewritten));
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
});

/// The restriction, and the SPS without it; a VUI that says nothing counts as none.
fn take_restriction(mut sps: SeqParameterSet) -> (Option<BitstreamRestrictions>, SeqParameterSet) {
    let restriction = sps.vui_parameters.as_mut().and_then(|vui| vui.bitstream_restrictions.take());
    sps.vui_parameters.take_if(|vui| *vui == VuiParameters::default());
    (restriction, sps)
}

/// PPS 0 for an SPS, as short as can be: only its first four fields are looked at.
fn pps(sps: u8) -> Vec<u8> {
    let code = sps + 1; // Exp-Golomb: as many zeros in front as bits behind the first 1
    let bits = format!("1{:0>width$b}00111000111000", code, width = 2 * code.ilog2() as usize + 1);
    let bytes = bits
        .as_bytes()
        .chunks_exact(8)
        .map(|bits| bits.iter().fold(0, |n, bit| n << 1 | (bit & 1)));
    std::iter::once(0x60 | nal_type::PPS).chain(bytes).chain([0x80]).collect()
}

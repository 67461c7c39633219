//! The conversion of a sequence parameter set (Rec. ITU-T H.264, 7.3.2.1) for browsers.
//!
//! Properties, if the SPS can be parsed:
//! - The SPS for browsers can be parsed, and is equal to the original except for the bitstream
//!   restriction.
//! - If the restriction was missing, the new one states that no frames are reordered. If it was
//!   present, the SPS is unchanged. Converting the result again has no effect.
//! - The SPS for browsers contains no start code and does not end with a zero byte, so it can be
//!   part of a byte stream.
//! - Together with a PPS, it results in parameter sets and an init segment, or in an error with a
//!   message.
//!
//! Input: an SPS NAL unit, starting with its header byte.

#![no_main]

use berrymse::fmp4::{SampleEntry, init_segment};
use berrymse::h264::annexb::{start_code, trim_zeros};
use berrymse::h264::params::{parse_sps, restrict_reordering};
use berrymse::h264::{Params, nal_type};
use h264_reader::nal::sps::{BitstreamRestrictions, SeqParameterSet, VuiParameters};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    // NAL units from a byte stream contain no start code and do not end with a zero byte.
    let end = trim_zeros(data, 0, start_code(data, 0).unwrap_or(data.len()));
    let nal = &data[..end];
    let mut params = Params::default();
    let _ = params.put_pps(nal);
    let Ok(sps) = parse_sps(nal) else {
        assert!(params.put_sps(nal).is_err());
        return;
    };

    let rewritten = restrict_reordering(nal, &sps);
    assert!(start_code(&rewritten, 0).is_none(), "start code in {rewritten:02x?}");
    assert_ne!(rewritten.last(), Some(&0));
    let again = parse_sps(&rewritten).expect("the SPS for browsers can be parsed");
    assert_eq!(restrict_reordering(&rewritten, &again), rewritten, "converted twice");
    let (had, plain) = take_restriction(sps.clone());
    let (has, plain_again) = take_restriction(again);
    assert_eq!(plain_again, plain, "a field other than the restriction has changed");
    if had.is_some() || rewritten == nal {
        assert_eq!((&rewritten[..], &has), (nal, &had));
    } else {
        let has = has.expect("a new restriction");
        assert_eq!(
            (has.max_num_reorder_frames, has.max_dec_frame_buffering),
            (0, sps.max_num_ref_frames)
        );
    }

    params.put_sps(nal).expect("an SPS that can be parsed");
    params.put_pps(&pps(sps.seq_parameter_set_id.id())).expect("a valid PPS");
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

/// Returns the restriction, and the SPS without it. An empty VUI is also removed.
fn take_restriction(mut sps: SeqParameterSet) -> (Option<BitstreamRestrictions>, SeqParameterSet) {
    let restriction = sps.vui_parameters.as_mut().and_then(|vui| vui.bitstream_restrictions.take());
    sps.vui_parameters.take_if(|vui| *vui == VuiParameters::default());
    (restriction, sps)
}

/// Returns a minimal PPS with the ID 0 for the SPS with the ID `sps`. The parser reads only its
/// first four fields.
fn pps(sps: u8) -> Vec<u8> {
    let code = sps + 1; // Exp-Golomb (9.1): one leading zero for each bit after the first 1
    let bits = format!("1{:0>width$b}00111000111000", code, width = 2 * code.ilog2() as usize + 1);
    let bytes = bits
        .as_bytes()
        .chunks_exact(8)
        .map(|bits| bits.iter().fold(0, |n, bit| n << 1 | (bit & 1)));
    std::iter::once(0x60 | nal_type::PPS).chain(bytes).chain([0x80]).collect()
}

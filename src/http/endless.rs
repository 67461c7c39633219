//! The stream as an endless file over HTTP, for players such as VLC, ffmpeg and Home Assistant.
//!
//! These players receive the same shared fragments as WebSocket viewers. New parameter sets cannot
//! be sent in a second `moov`, because ffmpeg skips it. The sample entry is therefore `avc3`, and
//! the new parameter sets precede the slices in the key frame (ISO/IEC 14496-15).

use crate::camera::Camera;
use crate::fmp4;
use crate::fmp4::{FRAGMENT_OVERHEAD, SampleEntry};
use crate::http::Context;
use crate::shutdown::Shutdown;
use crate::stream::{Event, Viewer};
use crate::stream::{Fragment, Init};
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use std::convert::Infallible;
use std::sync::Arc;
use warp::Reply;
use warp::reply::Response;

/// `GET /live….mp4`: fragmented MP4.
pub(super) fn mp4(camera: &Arc<Camera>, context: &Context) -> Response {
    let mut started = false;
    let convert = move |event| match event {
        Event::Frame(fragment) => vec![fragment.mp4()],
        Event::Start(init, group) => {
            let mut parts: Vec<Bytes> = group.iter().map(Fragment::mp4).collect();
            if std::mem::replace(&mut started, true) {
                let sets = &init.parameters;
                if let Some(first) = parts.first_mut() {
                    *first = fmp4::with_parameter_sets(first, sets).into();
                }
            } else {
                parts.insert(0, fmp4::init_segment(&init.parameters, SampleEntry::Avc3).into());
            }
            parts
        }
        Event::Dropped(_) => vec![],
    };
    body(camera, context, "video/mp4", convert)
}

/// `GET /live….h264`: Annex B, with the parameter sets as the camera sent them.
pub(super) fn h264(camera: &Arc<Camera>, context: &Context) -> Response {
    let convert = |event| match event {
        Event::Frame(fragment) => vec![annex_b(&fragment)],
        Event::Start(_, group) => group.iter().map(annex_b).collect(),
        Event::Dropped(_) => vec![],
    };
    body(camera, context, "video/h264", convert)
}

/// Returns the access unit of a fragment in Annex B format. Parameter sets precede a key frame.
fn annex_b(fragment: &Fragment) -> Bytes {
    const START_CODE: [u8; 4] = [0, 0, 0, 1];
    let mp4 = fragment.mp4();
    let mut out = Vec::with_capacity(mp4.len());
    let Init { parameters, .. } = &*fragment.init;
    for set in std::iter::once(&parameters.sps).chain(&parameters.pps).filter(|_| fragment.key) {
        out.extend(START_CODE);
        out.extend_from_slice(set);
    }
    let mut rest = &mp4[FRAGMENT_OVERHEAD..];
    while let Some((len, after)) = rest.split_first_chunk::<4>() {
        let (nal, after) = after.split_at(after.len().min(u32::from_be_bytes(*len) as usize));
        out.extend(START_CODE);
        out.extend_from_slice(nal);
        rest = after;
    }
    out.into()
}

fn body(
    camera: &Arc<Camera>,
    context: &Context,
    kind: &'static str,
    mut convert: impl FnMut(Event) -> Vec<Bytes> + Send + Sync + 'static,
) -> Response {
    let viewer = camera.stream.watch();
    let shutdown = context.shutdown.clone();
    let events = stream::unfold((viewer, shutdown), next);
    let parts = events.flat_map(move |event| {
        stream::iter(convert(event).into_iter().map(Ok::<Bytes, Infallible>))
    });
    let mut response = warp::reply::stream(parts).into_response();
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

async fn next(
    (mut viewer, mut shutdown): (Viewer, Shutdown),
) -> Option<(Event, (Viewer, Shutdown))> {
    let event = tokio::select! {
        event = viewer.next() => event?,
        _ = shutdown.wait() => return None,
    };
    Some((event, (viewer, shutdown)))
}

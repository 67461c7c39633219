//! `/metrics`: metrics for Prometheus (OpenMetrics text format 1.0).

use crate::camera::status::Status;
use crate::http::Context;
use crate::http::reply::plain;
use crate::stream::Delays;
use crate::stream::Stream;
use hyper::StatusCode;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;
use std::sync::Arc;
use warp::reply::Response;

/// `GET /metrics`
pub(super) fn metrics(context: Arc<Context>) -> Response {
    let mut registry = Registry::with_prefix("berrymse");
    let cameras = context.cameras.iter().map(|camera| camera.status()).collect();
    let uptime = context.started.elapsed().as_secs_f64();
    let streams = context.cameras.iter().map(|camera| camera.stream.clone()).collect();
    registry.register_collector(Box::new(Metrics { cameras, streams, uptime }));
    let mut body = String::new();
    if text::encode(&mut body, &registry).is_err() {
        return plain(StatusCode::INTERNAL_SERVER_ERROR, "cannot encode the metrics");
    }
    let mut response = Response::new(body.into());
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

#[derive(Debug)]
struct Metrics {
    cameras: Vec<Status>,
    streams: Vec<Arc<Stream>>,
    uptime: f64,
}

impl Collector for Metrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let uptime = ConstGauge::new(self.uptime);
        let name = "uptime_seconds";
        let of_uptime = encoder.encode_descriptor(
            name,
            "Time since the program started",
            None,
            uptime.metric_type(),
        )?;
        uptime.encode(of_uptime)?;

        let gauge = ConstGauge::new(0.0).metric_type();
        let counter = ConstCounter::new(0u64).metric_type();
        type Metric = (&'static str, &'static str, bool, fn(&Status) -> f64);
        let metrics: [Metric; 11] = [
            ("camera_up", "1 if the camera delivers video, otherwise 0", false, |s| {
                s.healthy().into()
            }),
            ("camera_framerate_hertz", "Frames per second, averaged over 2 s", false, |s| {
                s.framerate
            }),
            ("camera_bitrate_bits_per_second", "Bits per second, averaged over 2 s", false, |s| {
                s.bitrate as f64
            }),
            ("camera_viewers", "Current number of viewers", false, |s| s.viewers as f64),
            ("camera_width_pixels", "Width of the picture, 0 if unknown", false, |s| {
                s.width.unwrap_or(0).into()
            }),
            ("camera_frames", "Frames received from the camera", true, |s| s.frames as f64),
            ("camera_key_frames", "Key frames received from the camera", true, |s| {
                s.key_frames as f64
            }),
            ("camera_damaged", "Access units that could not be used", true, |s| s.damaged as f64),
            ("camera_early_cuts", "Access units sent before they were complete", true, |s| {
                s.early_cuts as f64
            }),
            ("camera_dropped_frames", "Frames dropped for slow viewers", true, |s| {
                s.dropped as f64
            }),
            ("camera_restarts", "Number of times the source was reopened", true, |s| {
                s.restarts as f64
            }),
        ];
        for (name, help, is_counter, value) in metrics {
            let kind = if is_counter { counter } else { gauge };
            let mut family = encoder.encode_descriptor(name, help, None, kind)?;
            for status in &self.cameras {
                let labels = [("camera", status.name.as_str())];
                let value = value(status);
                let encoder = family.encode_family(&labels)?;
                if is_counter {
                    ConstCounter::new(value).encode(encoder)?;
                } else {
                    ConstGauge::new(value).encode(encoder)?;
                }
            }
        }
        let help =
            "Time from the publication of a frame to its delivery to all viewers that keep up";
        let mut family =
            encoder.encode_descriptor("delivery_seconds", help, None, MetricType::Histogram)?;
        for (status, stream) in self.cameras.iter().zip(&self.streams) {
            let (sum, counts) = stream.delays().read();
            let bounds = Delays::BOUNDS.map(|microseconds| microseconds as f64 / 1e6);
            let buckets: Vec<(f64, u64)> =
                bounds.into_iter().chain([f64::INFINITY]).zip(counts).collect();
            let labels = [("camera", status.name.as_str())];
            let count = counts.iter().sum();
            family
                .encode_family(&labels)?
                .encode_histogram::<NoLabelSet>(sum, count, &buckets, None)?;
        }
        Ok(())
    }
}

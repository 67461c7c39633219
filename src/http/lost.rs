//! Cameras that were lost with an update: they delivered video before it, and do not now.
//!
//! The new system must show the cameras that the old one recorded ([`crate::system::camera_record`]);
//! otherwise its health check fails, and the old system starts again. If a camera is missing there,
//! too, the update is not the cause.

use crate::http::context::Context;
use crate::system::camera_record::RecordedCamera;
use crate::update::Report;

/// End of a line about a lost camera in the reply of `/healthz`. The new system's reply is stored, and
/// the old system recognizes this text in it. It must therefore stay the same in all versions.
const LOST: &str = "it delivered pictures before the update";

/// Cameras that have been missing since an update.
pub(super) struct SinceUpdate {
    /// Whether this system is new: if cameras are missing, the old system will start again.
    pub is_new: bool,
    /// Cameras that are missing in this system.
    pub missing: Vec<RecordedCamera>,
    /// Cameras that were missing in a new system that has failed its health check. This is the old
    /// system.
    pub lost: Vec<RecordedCamera>,
}

impl SinceUpdate {
    pub fn new(context: &Context) -> SinceUpdate {
        if let Some(required) = context.records.required() {
            let missing = missing(context, required);
            return SinceUpdate { is_new: true, missing, lost: vec![] };
        }
        let before = context.records.before_update().unwrap_or_default();
        let error = context.updater.health_error();
        let lost: Vec<RecordedCamera> =
            before.iter().filter(|camera| is_reported(camera, &error)).cloned().collect();
        // After the installation, the new system starts with the next restart.
        let concerned = if context.updater.is_installed() { before } else { lost.clone() };
        SinceUpdate { is_new: false, missing: missing(context, concerned), lost }
    }

    /// Adds the cameras to a report.
    pub fn add_to(self, report: &mut Report) {
        report.trial = self.is_new;
        report.missing_cameras = self.missing;
        if let Some(fell_back) = &mut report.fell_back {
            fell_back.cameras = self.lost.into_iter().map(|camera| camera.name).collect();
        }
    }
}

/// The cameras that a new system must show but does not, one per line. `None` if the system is not
/// new.
pub(super) fn required_but_missing(context: &Context) -> Option<Vec<String>> {
    let missing = missing(context, context.records.required()?);
    Some(missing.iter().map(|camera| describe(context, camera)).collect())
}

fn missing(context: &Context, recorded: Vec<RecordedCamera>) -> Vec<RecordedCamera> {
    let is_missing = |recorded: &RecordedCamera| match context.position(Some(&recorded.name)) {
        Some(n) => !context.cameras[n].still_shows(&recorded.kind),
        // The camera was renamed or removed by a change of the configuration. But if this system
        // cannot read the configuration, it shows no cameras at all.
        None => context.cameras.is_empty() && context.settings.problem.is_some(),
    };
    recorded.into_iter().filter(is_missing).collect()
}

fn describe(context: &Context, recorded: &RecordedCamera) -> String {
    let status = context.position(Some(&recorded.name)).map(|n| context.cameras[n].status());
    let state = match status {
        None => "not configured",
        Some(status) if !status.healthy() => status.state,
        Some(status) if status.kind.is_none() => "shows the test card",
        Some(_) => "shows another camera",
    };
    format!("{}{state}; {LOST}", prefix(&recorded.name))
}

/// Start of each line about a camera in the reply of `/healthz`.
pub(super) fn prefix(name: &str) -> String {
    format!("camera {name:?}: ")
}

/// Whether `error`, the last reply of a new system's `/healthz`, reports that the camera was lost.
fn is_reported(camera: &RecordedCamera, error: &str) -> bool {
    let prefix = prefix(&camera.name);
    error.lines().any(|line| line.contains(&prefix) && line.ends_with(LOST))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recognizes_lost_cameras_in_the_stored_error() {
        let camera = |name: &str| RecordedCamera { name: name.into(), kind: "v4l2".into() };
        let error = "the new system did not deliver video within 45 s: berrymse: camera \"a\": \
                     shows the test card; it delivered pictures before the update\n\
                     camera \"b\": failed\n\
                     camera \"c\\\"d\": failed; it delivered pictures before the update";
        for (name, reported) in [("a", true), ("b", false), ("c\"d", true), ("d", false)] {
            assert_eq!(is_reported(&camera(name), error), reported, "{name}");
        }
        assert!(!is_reported(&camera("a"), ""));
    }
}

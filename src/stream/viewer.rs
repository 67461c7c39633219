//! Viewers: positions in a stream.

use crate::stream::{Fragment, Init, Stream};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::watch;

/// Maximum lag of a viewer behind the live edge. A viewer that lags by more resumes at the newest
/// key frame.
pub const MAX_LAG: Duration = Duration::from_secs(1);

/// The next item to send to a viewer.
#[derive(Debug)]
pub enum Event {
    /// The init segment, and the fragments since the last key frame. Returned at the start, and
    /// after the parameter sets have changed.
    Start(Arc<Init>, Vec<Fragment>),
    /// The next frame.
    Frame(Fragment),
    /// The number of frames that were dropped because the viewer was too slow.
    Dropped(u64),
}

/// A position in the stream.
#[derive(Debug)]
pub struct Viewer {
    stream: Arc<Stream>,
    head: watch::Receiver<u64>,
    /// Number of the next fragment. `None` means the newest key frame.
    next: Option<u64>,
    /// The last init segment that was sent.
    init: Option<Arc<Init>>,
    /// Number of dropped frames not yet reported by [`Event::Dropped`].
    lost: u64,
    /// Whether this viewer is included in the number of viewers.
    counted: bool,
}

impl Stream {
    /// Adds a viewer, which starts at the newest key frame.
    pub fn watch(self: &Arc<Self>) -> Viewer {
        self.viewers.fetch_add(1, Ordering::Relaxed);
        self.key_wanted.store(true, Ordering::Relaxed);
        let mut viewer = self.observe();
        viewer.counted = true;
        viewer
    }

    /// Like [`Stream::watch`], but the viewer is not included in the number of viewers.
    pub fn observe(self: &Arc<Self>) -> Viewer {
        Viewer {
            stream: self.clone(),
            head: self.head.subscribe(),
            next: None,
            init: None,
            lost: 0,
            counted: false,
        }
    }
}

impl Drop for Viewer {
    fn drop(&mut self) {
        if self.counted {
            self.stream.viewers.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Viewer {
    /// Waits for the next event. Returns `None` if the stream no longer exists.
    ///
    /// This method is cancel safe.
    pub async fn next(&mut self) -> Option<Event> {
        loop {
            self.head.borrow_and_update();
            if let Some(event) = self.take() {
                return Some(event);
            }
            self.head.changed().await.ok()?;
        }
    }

    /// Returns the stream.
    pub fn stream(&self) -> &Arc<Stream> {
        &self.stream
    }

    /// Returns the number of the next fragment, or `None` if the viewer has not started.
    pub fn position(&self) -> Option<u64> {
        self.next
    }

    /// Continues at fragment `next`. The shard may have sent the fragments before it.
    pub fn resume(&mut self, next: u64) {
        self.next = Some(next);
    }

    /// Returns the next event if one is available.
    pub fn take(&mut self) -> Option<Event> {
        let window = self.stream.window();
        if let Some(next) = self.next {
            // Continue here, or skip to the newest key frame.
            let lag = |number: u64| {
                let at = usize::try_from(number.checked_sub(window.first)?).ok()?;
                Some(window.fragments.get(at)?.published.elapsed())
            };
            let too_slow = next < window.first || lag(next).is_some_and(|lag| lag > MAX_LAG);
            if too_slow && let Some(key) = window.key.filter(|&key| key > next) {
                self.lost += key - next;
                self.next = Some(key);
            } else if next < window.first {
                // Without a key frame in the window, wait for the next one.
                let head = window.next();
                self.lost += head - next;
                self.next = None;
            }
        }
        let next = self.next.or(window.key).filter(|&next| next < window.next())?;
        let at = usize::try_from(next - window.first).ok()?;
        let fragment = &window.fragments[at];
        let same = self.init.as_ref().is_some_and(|init| Arc::ptr_eq(init, &fragment.init));
        if self.lost > 0 {
            // Set the position so that no frame is counted twice if a key frame arrives before the
            // next call.
            self.next = Some(next);
            if self.counted {
                self.stream.dropped.fetch_add(self.lost, Ordering::Relaxed);
            }
            return Some(Event::Dropped(std::mem::take(&mut self.lost)));
        }
        if same {
            let fragment = fragment.clone();
            self.next = Some(next + 1);
            return Some(Event::Frame(fragment));
        }
        let init = fragment.init.clone();
        let group = window.fragments.range(at..);
        let group: Vec<Fragment> =
            group.take_while(|f| Arc::ptr_eq(&f.init, &init)).cloned().collect();
        self.next = Some(next + group.len() as u64);
        self.init = Some(init.clone());
        Some(Event::Start(init, group))
    }
}

//! A viewer: a position in the stream.

use crate::stream::{Fragment, Init, Stream};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::watch;

/// A viewer further behind than this goes on at the newest key frame: later than this the picture
/// is no longer live.
pub const MAX_LAG: Duration = Duration::from_secs(1);

/// What a viewer is to be sent next.
#[derive(Debug)]
pub enum Event {
    /// The beginning, or other parameter sets: the init segment and everything since the last key
    /// frame.
    Start(Arc<Init>, Vec<Fragment>),
    /// The next frame.
    Frame(Fragment),
    /// So many frames were left out, because the viewer was too slow.
    Dropped(u64),
}

/// A position in the stream.
#[derive(Debug)]
pub struct Viewer {
    stream: Arc<Stream>,
    head: watch::Receiver<u64>,
    /// Number of the next fragment; `None`: at the newest key frame.
    next: Option<u64>,
    init: Option<Arc<Init>>,
    /// Frames left out that the viewer has not been told of.
    lost: u64,
    counted: bool,
}

impl Stream {
    /// A new viewer.
    pub fn watch(self: &Arc<Self>) -> Viewer {
        self.viewers.fetch_add(1, Ordering::Relaxed);
        self.key_wanted.store(true, Ordering::Relaxed);
        let mut viewer = self.observe();
        viewer.counted = true;
        viewer
    }

    /// A reader that does not count as a viewer.
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
    /// What is to be sent next. Waits for it. `None`: the stream is no more.
    ///
    /// Cancel safe.
    pub async fn next(&mut self) -> Option<Event> {
        loop {
            self.head.borrow_and_update();
            if let Some(event) = self.take() {
                return Some(event);
            }
            self.head.changed().await.ok()?;
        }
    }

    /// The stream that is watched.
    pub fn stream(&self) -> &Arc<Stream> {
        &self.stream
    }

    /// Number of the next fragment, once the viewer has started.
    pub fn position(&self) -> Option<u64> {
        self.next
    }

    /// Goes on at fragment `next`: somebody else has sent those before it.
    pub fn resume(&mut self, next: u64) {
        self.next = Some(next);
    }

    /// What is to be sent next, if there is something.
    pub fn take(&mut self) -> Option<Event> {
        let window = self.stream.window();
        if let Some(next) = self.next {
            // Where to go on: here, or at the newest key frame.
            let behind = |number: u64| {
                let at = usize::try_from(number.checked_sub(window.first)?).ok()?;
                Some(window.fragments.get(at)?.published.elapsed())
            };
            let too_late = next < window.first || behind(next).is_some_and(|lag| lag > MAX_LAG);
            if too_late && let Some(key) = window.key.filter(|&key| key > next) {
                self.lost += key - next;
                self.next = Some(key);
            } else if next < window.first {
                // No key frame to go on at: wait for the next one.
                let now = window.next();
                self.lost += now - next;
                self.next = None;
            }
        }
        let next = self.next.or(window.key).filter(|&next| next < window.next())?;
        let at = usize::try_from(next - window.first).ok()?;
        let fragment = &window.fragments[at];
        let same = self.init.as_ref().is_some_and(|init| Arc::ptr_eq(init, &fragment.init));
        if self.lost > 0 {
            // Set, so that no frame is counted twice if another key frame comes meanwhile.
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

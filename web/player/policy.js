// Decides how to stay at the live edge: which policy suits the browser, how fast to play, when to
// seek, and when a policy has failed. Pure: no DOM. Times are in seconds unless a name says otherwise.

/** Lag behind the policy's target above which playback speeds up, or seeks to a newer key frame. */
const CATCH_UP_LAG = { webkit: 0.08, other: 0.2 };
/** Lag behind the target above which playback always seeks. */
const SEEK_LAG = { webkit: 1, other: 3 };
/** Minimum distance of a seek. A shorter seek is not worth its cost. */
const MIN_SEEK = 0.08;
/** Slack that each stall adds to the distance that `nudge` keeps; the total is limited, and decays. */
const SLACK_STEP = 0.02;
const MAX_SLACK = 0.2;
const SLACK_DECAY_TIME = 20;
const MAX_RATE = 16;
/** Minimum change to the playback rate. Smaller changes are not applied. */
const MIN_RATE_CHANGE = 0.01;

/** Minimum playback rate of `run-ahead`. */
const MIN_RUN_AHEAD_RATE = 1.2;
/** Rate of `run-ahead`: less than one frame per refresh, and less than 2, because browsers skip some otherwise. */
const runAheadRate = (step, screen) => Math.min(1.75, (0.87 * step) / screen);

/**
 * `rate` returns the playback rate, `edge` the target distance from the end of the buffer. Both take an
 * object: `step` is the time between frames, `screen` the time between screen refreshes, `behind` the
 * lag behind the target right after data was appended, and `slack` the additional distance after stalls.
 *
 * WebKit restarts its pipeline at every change of the rate and at every seek, so in WebKit the rate
 * stays at 1, and seeks are avoided where possible.
 */
export const POLICIES = {
  // Plays faster than the camera delivers: waits for each frame and shows it immediately.
  'run-ahead': {
    surface: 'mse',
    suits: ({ step, screen, webkit }) => !webkit && runAheadRate(step, screen) >= MIN_RUN_AHEAD_RATE,
    rate: ({ step, screen }) => Math.max(MIN_RUN_AHEAD_RATE, runAheadRate(step, screen)),
    edge: () => 0.02,
  },
  // Keeps a constant distance by playing slightly faster or slower.
  nudge: {
    surface: 'mse',
    suits: () => true,
    rate: ({ behind, webkit }) => (webkit ? 1 : 1 + Math.max(-0.1, Math.min(0.25, 2 * behind))),
    edge: ({ step, slack }) => 0.035 + step + slack,
  },
  // Decodes every frame on arrival and draws the newest.
  webcodecs: { surface: 'webcodecs', suits: () => true },
};

/** The policies in order of preference. */
const PREFERENCE = ['run-ahead', 'webcodecs', 'nudge'];

/** Returns whether a browser is based on WebKit (Safari, all browsers on iPhone and iPad, WebKitGTK). */
export const isWebKit = (userAgent) => !/Chrom(e|ium)|Gecko\//.test(userAgent);

/**
 * Returns the name of the policy to use, or undefined if the browser supports none. This is `mode` if
 * it names a supported policy. Otherwise, it is the first suitable policy in order of preference,
 * after skipping the `abandoned` policies that have failed. `canPlay(name)` returns whether the
 * browser supports a policy.
 */
export function choosePolicy(mode, abandoned, canPlay, conditions) {
  if (POLICIES[mode] && canPlay(mode)) return mode;
  const names = PREFERENCE.filter((name) => canPlay(name) && POLICIES[name].suits(conditions));
  return names[Math.min(abandoned, names.length - 1)];
}

/** Returns the time between screen refreshes, in seconds, from the times of 21 animation frames, in ms. */
export function refreshPeriod(times) {
  const steps = times.slice(1).map((time, n) => time - times[n]).sort((a, b) => a - b);
  return Math.min(1 / 24, Math.max(1 / 360, steps[10] / 1000));
}

/** Keeps a playing `<video>` at the live edge of its buffer. */
export class Pacer {
  #slack = 0;
  #started = false;
  #webkit;
  policy;

  constructor(policy, webkit) {
    this.policy = policy;
    this.#webkit = webkit;
  }

  /** Playback has stalled at the end of the buffer. */
  stalled() {
    if (!this.#webkit && this.policy === POLICIES.nudge) this.#addSlack();
  }

  /**
   * Returns the position to seek to and the rate to set; null means no change. `start` and `end` are the
   * bounds of the buffer, `key` is the time of its newest key frame, and `ready` indicates whether the
   * current frame has been decoded.
   */
  adjust({ start, end, currentTime, rate: current, key, ready, step, screen }) {
    const webkit = this.#webkit;
    // WebKit breaks if it seeks before it has decoded its first frame.
    if (webkit && !ready && start <= currentTime) return { seek: null, rate: null };
    const engine = webkit ? 'webkit' : 'other';
    const lag = end - currentTime;
    const conditions = { step, screen, webkit, slack: this.#slack };
    const edge = this.policy.edge(conditions);
    const behind = lag - edge;
    let seek = null;
    let rate = this.policy.rate({ ...conditions, behind });
    this.#slack *= 1 - step / SLACK_DECAY_TIME;
    const late = behind > CATCH_UP_LAG[engine];
    // Seeking to a newer key frame is less work for the decoder than decoding everything in between.
    if (!this.#started || behind > SEEK_LAG[engine] || lag < -1 || (late && key > currentTime)) {
      if (Math.abs(behind) > MIN_SEEK) seek = end - edge;
      if (webkit && this.#started) this.#addSlack();
    } else if (behind > CATCH_UP_LAG[engine] / 2 && !webkit) {
      // This rate covers most of the distance before the next frame arrives.
      rate = Math.max(rate, Math.min(MAX_RATE, 1 + (0.7 * behind) / step));
      // The network caused the delay, and more slack does not prevent that.
      if (late) this.#slack = Math.max(0, this.#slack - SLACK_STEP);
    }
    this.#started = true;
    return { seek, rate: Math.abs(rate - current) > MIN_RATE_CHANGE ? rate : null };
  }

  #addSlack() {
    this.#slack = Math.min(MAX_SLACK, this.#slack + SLACK_STEP);
  }
}

/** Number of ticks before a trial starts, and its length in ticks. */
const WARM_UP_TICKS = 2;
const TRIAL_TICKS = 10;
/** Minimum fraction of the received frames that must be shown. */
const MIN_SHOWN = 0.9;
/** Number of consecutive failed trials after which a policy is abandoned. */
const MAX_FAILED_TRIALS = 2;

/** Checks whether a policy shows enough of the received frames. */
export class Trial {
  #ticks = null;
  #failed = 0;
  #before = null;

  /** Restarts the trial, after a change of policy or a gap. */
  reset() {
    this.#ticks = null;
    this.#failed = 0;
  }

  /**
   * Call this method at regular intervals, with the numbers of frames `received` and `shown` so far.
   * `interrupted` restarts the trial: set it if the network has stalled or nothing is playing. Returns true
   * once the policy has failed.
   */
  tick({ received, shown }, interrupted) {
    if (this.#ticks === null || interrupted) {
      this.#ticks = -WARM_UP_TICKS;
      return false;
    }
    this.#ticks++;
    if (this.#ticks === TRIAL_TICKS) {
      const due = received - this.#before.received;
      const failed = shown - this.#before.shown < due * MIN_SHOWN;
      this.#failed = failed ? this.#failed + 1 : 0;
      this.#ticks = 0;
    }
    if (this.#ticks === 0) this.#before = { received, shown };
    return this.#failed >= MAX_FAILED_TRIALS;
  }
}

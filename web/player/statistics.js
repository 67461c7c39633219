// Counts frames and bytes, and computes rates and the age of the picture from them. Pure: all times are
// passed in, in milliseconds unless a comment says otherwise.

import { TIMESCALE } from './parse.js';

/** Number of shown frames to keep until their publication times become known. */
const MAX_SHOWN_FRAMES = 128;
/** Tolerance when media times are compared, in ticks. Browsers round these times to microseconds. */
const TIME_TOLERANCE = 90;

export class Statistics {
  received = 0;
  shown = 0;
  bytes = 0;
  /** Received but not shown. */
  skipped = 0;
  /** Not sent by the server. */
  dropped = 0;
  reconnects = 0;
  #frames = [];
  #before = null;
  #age = null;

  /** Counts `count` newly shown frames. The newest, `time` seconds into the stream, was shown at `at`. */
  frameShown(time, at, count) {
    this.shown += count;
    this.#frames = [...this.#frames.slice(1 - MAX_SHOWN_FRAMES), { time, at }];
  }

  /** Restarts the rates, for a new connection. */
  reset() {
    this.#frames = [];
    this.#before = null;
  }

  /** Returns rates since the last sample, totals, age and round trip; null for the first sample. */
  sample(now, clock) {
    const { received, shown, bytes } = this;
    const before = this.#before;
    this.#before = { at: now, received, shown, bytes };
    if (!before) return null;
    const seconds = (now - before.at) / 1000;
    const rate = (name) => (this[name] - before[name]) / seconds;
    this.skipped += Math.max(0, received - before.received - (shown - before.shown));
    const { roundTrip, offset } = clock.best;
    clock.published = clock.published.filter(({ time, published }) => {
      const found = this.#frames.find((frame) => Math.abs(frame.time * TIMESCALE - time) < TIME_TOLERANCE);
      if (found) this.#age = found.at - published - offset;
      return !found;
    });
    return {
      age: this.#age,
      roundTrip: Number.isFinite(roundTrip) ? roundTrip : null,
      shown: rate('shown'),
      received: rate('received'),
      bitrate: rate('bytes') * 8,
      skipped: this.skipped,
      dropped: this.dropped,
      reconnects: this.reconnects,
    };
  }
}

// Records the received frames, starting at the next key frame, as one fragmented MP4 file. No DOM.

import { TIMESCALE, retimedFragment } from './parse.js';

export class Recording {
  #parts = [];
  /** Codec and size of the file. */
  #kind = null;
  #lastTime = 0;
  /** Offset from stream times to file times, in ticks; null until the next key frame. */
  #shift = null;
  #end = 0;
  #onStop;

  /** `onStop(recording)` is called once, when the recording ends. */
  constructor(onStop) {
    this.#onStop = onStop;
  }

  /** Appends a parsed message of a stream with this `init` text message. */
  append(message, { codec, width, height }) {
    if (!this.#onStop) return;
    const { init, frames } = message;
    if (init) {
      const kind = `${codec} ${width}x${height}`;
      // Most players support only one init segment per file, so the file ends when the parameters change.
      if (this.#kind && this.#kind !== kind) return void this.stop();
      // If the server has restarted, its times start over: continue at the end of the file.
      if (frames.length && frames.at(-1).time < this.#lastTime) this.#shift = this.#lastTime = null;
      if (!this.#kind) this.#parts.push(init.slice());
      this.#kind = kind;
    }
    if (!this.#kind) return;
    for (const frame of frames) {
      if (this.#lastTime && frame.time <= this.#lastTime) continue;
      if (this.#shift === null && !frame.key) continue;
      this.#shift ??= this.#end - frame.time;
      this.#lastTime = frame.time;
      const time = frame.time + this.#shift;
      this.#end = time + frame.duration;
      this.#parts.push(retimedFragment(message, frame, time));
    }
  }

  /** Seconds recorded so far. */
  get duration() {
    return this.#end / TIMESCALE;
  }

  /** Ends the recording and returns the file. */
  stop() {
    this.#onStop?.(this);
    this.#onStop = null;
    return new Blob(this.#parts, { type: 'video/mp4' });
  }
}

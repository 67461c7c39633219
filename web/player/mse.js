// A surface: a <video> fed through Media Source Extensions, or through Managed Media Source on iPhones.
// All surfaces have append(message), change(init text message), live() and close().

import { TIMESCALE, concatenate, mimeType } from './parse.js';
import { Pacer, isWebKit } from './policy.js';

/** Length of played video to keep in the source buffer, in seconds. */
const BACK_BUFFER_S = 8;
/** Maximum number of messages queued for a Managed Media Source before all are discarded. */
const MAX_WAITING_MESSAGES = 300;

export const WEBKIT = isWebKit(navigator.userAgent);
const AnyMediaSource = self.MediaSource ?? self.ManagedMediaSource;
export const HAS_MEDIA_SOURCE = Boolean(AnyMediaSource);

export class VideoSurface {
  #video;
  #source = new AnyMediaSource();
  #buffer = null;
  /** Messages, and MIME types to change to. */
  #queue = [];
  #discarded = false;
  /** Times of the key frames in the buffer, in seconds. */
  #keys = [];
  #full = false;
  #pacer;
  #failed;
  #conditions;

  /**
   * `failed(message)` reports an error, `restart()` requests a new connection, and `conditions()`
   * returns `step` and `screen` (see policy.js).
   */
  constructor(video, policy, init, { failed, restart, conditions }) {
    this.#video = video;
    this.#pacer = new Pacer(policy, WEBKIT);
    this.#failed = failed;
    this.#conditions = conditions;
    const source = this.#source;
    source.addEventListener('sourceopen', () => {
      if (this.#buffer || this.#source !== source) return;
      this.#buffer = source.addSourceBuffer(mimeType(init));
      this.#buffer.addEventListener('updateend', () => this.#appended());
      this.#appendQueue();
    });
    // A Managed Media Source signals when it accepts data. Data that has waited too long is
    // discarded.
    source.addEventListener('startstreaming', () => (this.#discarded ? restart() : this.#appendQueue()));
    video.onwaiting = () => { if (!video.seeking) this.#pacer.stalled(); };
    video.src = URL.createObjectURL(source);
  }

  static canPlay = (init) => Boolean(AnyMediaSource?.isTypeSupported(mimeType(init)));

  set policy(policy) {
    this.#pacer.policy = policy;
  }

  /** The stream continues with different parameters. Queued messages still use the old ones. */
  change(init) {
    this.#queue.push(mimeType(init));
  }

  append({ data, frames }) {
    if (this.#discarded) return;
    for (const { key, time } of frames) if (key) this.#keys.push(time / TIMESCALE);
    this.#queue.push(data);
    if (this.#source?.streaming === false && this.#queue.length > MAX_WAITING_MESSAGES) {
      this.#queue = [];
      this.#discarded = true;
    }
    this.#appendQueue();
  }

  /** Appends all queued data in one call, which costs less than one call per message. */
  #appendQueue() {
    const buffer = this.#buffer;
    const source = this.#source;
    if (!buffer || !source || buffer.updating || !this.#queue.length) return;
    if (source.readyState !== 'open' || source.streaming === false) return;
    let parts = [];
    try {
      if (typeof this.#queue[0] === 'string') buffer.changeType(this.#queue.shift());
      const until = this.#queue.findIndex((part) => typeof part === 'string');
      parts = this.#queue.splice(0, until < 0 ? this.#queue.length : until);
      if (parts.length) buffer.appendBuffer(parts.length > 1 ? concatenate(parts) : parts[0]);
      this.#full = false;
    } catch (error) {
      // If the buffer is full, make room and retry once.
      this.#queue.unshift(...parts);
      if (error.name === 'QuotaExceededError' && !this.#full && this.#removeBefore(0)) this.#full = true;
      else this.#failed(`The browser rejected the video data (${error.name}).`);
    }
  }

  /**
   * Removes data more than `seconds` behind the playback position. Removes only whole groups of pictures:
   * browsers remove a group up to its end, which is the live edge in the case of the current group.
   */
  #removeBefore(seconds) {
    const old = this.#keys.filter((key) => key <= this.#video.currentTime - seconds);
    if (old.length < 2 || this.#buffer.updating) return false;
    this.#keys.splice(0, old.length - 1);
    this.#buffer.remove(0, this.#keys[0]);
    return true;
  }

  #appended() {
    if (!this.#buffer) return;
    this.live();
    if (!this.#removeBefore(BACK_BUFFER_S)) this.#appendQueue();
  }

  /** Adjusts the position and the playback rate to stay at the live edge. */
  live() {
    const video = this.#video;
    const { buffered, currentTime, playbackRate } = video;
    if (!buffered.length) return;
    const { seek, rate } = this.#pacer.adjust({
      start: buffered.start(0),
      end: buffered.end(buffered.length - 1),
      currentTime,
      rate: playbackRate,
      key: this.#keys.at(-1),
      ready: video.readyState >= HTMLMediaElement.HAVE_CURRENT_DATA,
      ...this.#conditions(),
    });
    if (seek !== null) video.currentTime = seek;
    if (rate !== null) video.playbackRate = rate;
  }

  close() {
    this.#buffer = null;
    this.#queue = [];
    this.#source = null;
    this.#video.onwaiting = null;
    URL.revokeObjectURL(this.#video.src);
    this.#video.removeAttribute('src');
    this.#video.load();
  }
}

// <berry-mse>: live video from a BerryMSE camera in any page. docs/embedding.md describes the element,
// and berrymse.d.ts contains its types. This module implements the element itself: its states, and the
// connections between the modules in player/. The server serves all modules bundled into one file.

import { Connection, cameraName, statusUrl } from './player/connection.js';
import { STYLE, download, statisticsText, updateBar } from './player/controls.js';
import { HAS_MEDIA_SOURCE, VideoSurface, WEBKIT } from './player/mse.js';
import { TIMESCALE, parseMessage } from './player/parse.js';
import { POLICIES, Trial, choosePolicy, refreshPeriod } from './player/policy.js';
import { Recording } from './player/recording.js';
import { Statistics } from './player/statistics.js';
import { CanvasSurface } from './player/webcodecs.js';

const TICK_MS = 500;
/** Maximum time without a frame while connected. After it, the state is "waiting". */
const NO_FRAME_TIMEOUT_MS = 1500;
/** Maximum time without a message, not even a time reply. After it, the connection is considered dead. */
const DEAD_CONNECTION_TIMEOUT_MS = 4000;
/** Maximum time in which frames arrive but none is shown. After it, the policy has failed. */
const FROZEN_TIMEOUT_MS = 3000;
/** Maximum time for which the page is hidden. After it, the element disconnects. */
const HIDDEN_TIMEOUT_MS = 5000;
/** Maximum gap between two ticks. A longer gap means that the computer was suspended. */
const SLEEP_GAP_MS = 10000;
/** Interval between requests for the reason why no picture is available. */
const REASON_INTERVAL_MS = 2000;

const CONNECTION_LOST = 'Connection lost. Reconnecting…';
const SURFACES = { mse: VideoSurface, webcodecs: CanvasSurface };

const styleSheet = new CSSStyleSheet();
styleSheet.replaceSync(STYLE);

/** Time between screen refreshes, in seconds. */
let screenPeriod = 1 / 60;
function measureScreen() {
  const times = [];
  const onFrame = (time) => {
    times.push(time);
    if (times.length <= 20) requestAnimationFrame(onFrame);
    else screenPeriod = refreshPeriod(times);
  };
  requestAnimationFrame(onFrame);
}

const booleanAttribute = (name) => ({
  get() { return this.hasAttribute(name); },
  set(on) { this.toggleAttribute(name, Boolean(on)); },
});
const stringAttribute = (name, initial) => ({
  get() { return this.getAttribute(name) ?? initial; },
  set(value) { this.setAttribute(name, value); },
});

export class BerryMse extends HTMLElement {
  static observedAttributes = ['src', 'mode', 'fit', 'poster', 'controls', 'overlay'];

  #state = 'connecting';
  #message = '';
  #stats = null;
  #video = document.createElement('video');
  #canvas = document.createElement('canvas');
  /** The last picture, shown until a newer one is available. */
  #still = document.createElement('canvas');
  #notice = document.createElement('div');
  #overlay = document.createElement('pre');
  #controls = document.createElement('div');
  /**
   * Whether the page wants the element to play, and whether the element is disconnected because the page
   * is hidden.
   */
  #wanted = false;
  #suspended = false;
  #surface = null;
  /** The latest `init` text message, and the latest init segment. */
  #init = null;
  #segment = null;
  #recordings = new Set();
  #policy = null;
  /** Number of policies abandoned so far. */
  #abandoned = 0;
  #trial = new Trial();
  #statistics = new Statistics();
  /** Time between frames, in seconds. */
  #step = 1 / 30;

  #ticks = 0;
  #tickTimer = 0;
  #hiddenTimer = 0;
  #lastTickAt = 0;
  #lastFrameAt = 0;
  #lastShownAt = 0;
  #lastReasonAt = 0;

  #connection = new Connection({
    opened: () => { this.#lastFrameAt = performance.now(); },
    text: (message) => this.#onText(message),
    data: (buffer) => this.#onMessage(parseMessage(buffer)),
    lost: () => this.#reconnect(CONNECTION_LOST),
  });

  constructor() {
    super();
    const root = this.attachShadow({ mode: 'open' });
    root.adoptedStyleSheets = [styleSheet];
    const video = this.#video;
    // iPhones require all four to start playback without a tap.
    video.defaultMuted = video.muted = true;
    video.autoplay = true;
    video.playsInline = true;
    video.disableRemotePlayback = true;
    video.addEventListener('error', () => {
      if (video.hasAttribute('src')) this.#fail('The browser could not decode the video.');
    });
    const notice = this.#notice;
    const parts = { video, canvas: this.#canvas, still: this.#still, notice,
      overlay: this.#overlay, controls: this.#controls };
    for (const [name, part] of Object.entries(parts)) {
      part.part = part.className = name;
      part.hidden = part !== video && part !== notice;
      root.append(part);
    }
    notice.role = 'status';
  }

  connectedCallback() {
    document.addEventListener('visibilitychange', this.#onVisibilityChange);
    addEventListener('online', this.#onOnline);
    this.#wanted = this.autoplay;
    this.#suspended = false;
    this.#restart();
  }

  disconnectedCallback() {
    document.removeEventListener('visibilitychange', this.#onVisibilityChange);
    removeEventListener('online', this.#onOnline);
    clearInterval(this.#tickTimer);
    clearTimeout(this.#hiddenTimer);
    this.#close();
    this.#still.hidden = true;
    for (const recording of this.#recordings) recording.stop();
  }

  attributeChangedCallback(name, old, value) {
    if (old === value) return;
    if (name === 'fit') {
      for (const part of [this.#video, this.#canvas, this.#still]) part.style.objectFit = value ?? '';
    } else if (name === 'poster') {
      this.#video.poster = value ?? '';
    } else if (name === 'overlay' || name === 'controls') {
      this.#overlay.hidden = !this.overlay;
      this.#updateOverlay();
      this.#updateControls();
    } else if (this.isConnected) {
      if (name === 'src') this.#still.hidden = true;
      this.#restart();
    }
  }

  // ---- Public API ----

  get state() { return this.#state; }
  get message() { return this.#message; }
  get stats() { return this.#stats; }
  get video() { return this.#video; }
  get paused() { return !this.#wanted; }
  get muted() { return this.#video.muted; }
  set muted(muted) { this.#video.muted = muted; }
  get autoplay() { return this.getAttribute('autoplay') !== 'false'; }
  set autoplay(autoplay) { this.setAttribute('autoplay', autoplay ? '' : 'false'); }

  get url() {
    const url = new URL(this.getAttribute('src') || 'live', import.meta.url);
    url.protocol = url.protocol.replace('http', 'ws');
    return url;
  }

  play() {
    this.#wanted = true;
    this.#suspended = false;
    if (!this.#connection.active) {
      this.#restart();
    } else if (this.#surface instanceof VideoSurface) {
      if (this.#state === 'tap') this.#setState('connecting', 'Connecting…');
      this.#startVideo();
    }
    return new Promise((resolve, reject) => {
      const check = () => {
        const settle = { playing: resolve, tap: reject, unsupported: reject, paused: reject }[this.#state];
        if (settle) this.removeEventListener('statechange', check);
        settle?.(settle === reject ? new DOMException(this.#message || this.#state, 'NotAllowedError') : undefined);
      };
      this.addEventListener('statechange', check);
      check();
    });
  }

  pause() {
    this.#wanted = false;
    this.#restart();
  }

  snapshot(type = 'image/png', quality) {
    let canvas = this.#still;
    if (this.#surface) this.#copyPicture(canvas = document.createElement('canvas'));
    if (!canvas.width || (canvas === this.#still && canvas.hidden)) {
      return Promise.reject(new DOMException('No picture is available yet.', 'InvalidStateError'));
    }
    return new Promise((resolve) => { canvas.toBlob(resolve, type, quality); });
  }

  record() {
    const recording = new Recording((ended) => {
      this.#recordings.delete(ended);
      this.#updateControls();
    });
    this.#recordings.add(recording);
    if (this.#segment) recording.append({ init: this.#segment, frames: [] }, this.#init);
    this.#updateControls();
    return recording;
  }

  fullscreen() {
    if (document.fullscreenElement) document.exitFullscreen();
    else if (this.requestFullscreen) this.requestFullscreen();
    else this.#video.webkitEnterFullscreen?.(); // iPhone
  }

  // ---- Connecting and reconnecting ----

  /** Starts or stops playback, depending on what the page wants, and clears all failures. */
  #restart() {
    this.#connection.failures = this.#abandoned = 0;
    clearInterval(this.#tickTimer);
    if (!this.#wanted || this.#suspended) {
      this.#close();
      this.#setState('paused', '');
    } else {
      this.#lastTickAt = Date.now();
      this.#tickTimer = setInterval(() => this.#tick(), TICK_MS);
      if (this.#state !== 'reconnecting') this.#setState('connecting', 'Connecting…');
      this.#connect();
    }
  }

  #connect() {
    this.#close();
    if (!HAS_MEDIA_SOURCE && !self.VideoDecoder) {
      return this.#fail('This browser cannot play live video (no Media Source Extensions).', true);
    }
    try {
      this.#connection.connect(this.url);
    } catch (error) {
      this.#fail(`Invalid camera address "${this.getAttribute('src')}" (${error.message}).`, true);
    }
  }

  #close() {
    this.#connection.close();
    if (this.#surface) {
      if (this.#copyPicture(this.#still)) this.#still.hidden = false;
      this.#surface.close();
    }
    this.#surface = this.#init = this.#segment = null;
    this.#trial.reset();
    this.#statistics.reset();
  }

  #reconnect(message) {
    if (!this.isConnected || !this.#wanted || this.#suspended) return;
    this.#close();
    this.#setState('reconnecting', message);
    this.#statistics.reconnects++;
    this.#connection.retry(() => this.#connect());
    if (this.#connection.failures > 1) this.#showReason();
  }

  /** Reports an error. After a fatal error, the element does not retry. */
  #fail(message, fatal = false) {
    this.dispatchEvent(new CustomEvent('error', { detail: { message, fatal } }));
    if (!fatal) return this.#reconnect(message);
    this.#close();
    this.#setState('unsupported', message);
  }

  #onOnline = () => {
    if (this.#state === 'reconnecting' && !document.hidden) this.#connect();
  };

  #onVisibilityChange = () => {
    clearTimeout(this.#hiddenTimer);
    if (document.hidden) {
      this.#hiddenTimer = setTimeout(() => this.#suspend(), HIDDEN_TIMEOUT_MS);
    } else if (this.#suspended) {
      this.#suspended = false;
      this.#restart();
    } else {
      this.#lastShownAt = performance.now();
      this.#trial.reset();
      this.#surface?.live();
      if (this.#surface instanceof VideoSurface && this.#video.paused) this.#startVideo();
    }
  };

  #suspend() {
    if (this.#recordings.size || this.shadowRoot.pictureInPictureElement) return;
    this.#suspended = true;
    this.#restart();
  }

  // ---- Playing ----

  #onText(message) {
    if (message.type === 'dropped') this.#statistics.dropped += message.frames;
    else if (message.type === 'init') this.#onInit(message);
  }

  /** The stream starts, or continues with different parameters. */
  #onInit(init) {
    this.#init = init;
    this.#step = 1 / (init.framerate || 30);
    const policy = this.#choosePolicy();
    if (!policy) {
      this.#fail(`This browser cannot play this camera's video (${init.codec}).`, true);
    } else if (!this.#surface) {
      this.#openSurface(policy);
    } else {
      this.#surface.change(init);
      this.#usePolicy(policy);
    }
  }

  #onMessage(message) {
    const { init, frames } = message;
    this.#lastFrameAt = performance.now();
    this.#statistics.bytes += message.data.byteLength;
    if (init) this.#segment = init;
    else this.#statistics.received += frames.length;
    if (frames.length) this.#step = frames.at(-1).duration / TIMESCALE;
    this.#surface?.append(message);
    for (const recording of this.#recordings) recording.append(message, this.#init);
  }

  #conditions = () => ({ step: this.#step, screen: screenPeriod, webkit: WEBKIT });

  #choosePolicy() {
    const canPlay = (name) => SURFACES[POLICIES[name].surface].canPlay(this.#init);
    return choosePolicy(this.mode, this.#abandoned, canPlay, this.#conditions());
  }

  #usePolicy(name) {
    this.#policy = name;
    this.#trial.reset();
    this.#surface.policy = POLICIES[name];
    // A new kind of surface needs a stream that starts at a key frame.
    if (!(this.#surface instanceof SURFACES[POLICIES[name].surface])) this.#connect();
  }

  #openSurface(policy) {
    const isCanvas = POLICIES[policy].surface === 'webcodecs';
    const callbacks = {
      failed: (message) => this.#fail(message),
      restart: () => this.#connect(),
      shown: (...frame) => this.#onShown(...frame),
      conditions: this.#conditions,
    };
    this.#surface = isCanvas
      ? new CanvasSurface(this.#canvas, this.#init, callbacks)
      : new VideoSurface(this.#video, POLICIES[policy], this.#init, callbacks);
    this.#canvas.hidden = !isCanvas;
    this.#video.hidden = isCanvas;
    this.#usePolicy(policy);
    this.#lastShownAt = performance.now();
    if (!isCanvas) {
      this.#watchVideo();
      this.#startVideo();
    }
  }

  #startVideo() {
    this.#video.play()?.catch((error) => {
      // Other errors mean that a later call interrupted this one.
      if (error.name === 'NotAllowedError') this.#setState('tap', '');
    });
  }

  /** Calls #onShown for every frame of the video. */
  #watchVideo() {
    const video = this.#video;
    const surface = this.#surface;
    let before = 0;
    const onFrame = (now, frame) => {
      if (surface !== this.#surface) return;
      const count = frame ? Math.max(1, frame.presentedFrames - before) : 1;
      before = frame?.presentedFrames;
      this.#onShown(frame?.mediaTime ?? video.currentTime, frame?.presentationTime ?? now, count);
      video.requestVideoFrameCallback?.(onFrame);
    };
    if (video.requestVideoFrameCallback) video.requestVideoFrameCallback(onFrame);
    else video.ontimeupdate = () => onFrame(performance.now());
  }

  /** `time` is the stream time in seconds; `at` is a time on this page's clock. */
  #onShown(time, at, count) {
    this.#lastShownAt = performance.now();
    this.#connection.failures = 0;
    this.#statistics.frameShown(time, at, count);
    if (this.#state === 'playing' || (this.#state === 'tap' && this.#video.paused)) return;
    if (this.#state === 'waiting' && performance.now() - this.#lastFrameAt > NO_FRAME_TIMEOUT_MS) return;
    this.#still.hidden = true;
    this.#setState('playing', '');
  }

  // ---- Supervision ----

  #tick() {
    const connection = this.#connection;
    const asleep = Date.now() - this.#lastTickAt > SLEEP_GAP_MS;
    this.#lastTickAt = Date.now();
    if (document.hidden || !connection.open) return;
    if (asleep) return this.#connect();
    const now = performance.now();
    const silence = now - connection.lastMessageAt;
    if (connection.clock.count < 5 || silence > TICK_MS || this.#ticks % 4 === 0) connection.askTime();
    if (++this.#ticks % 2 === 0) this.#measure(now);
    this.#surface?.live();
    if (silence > DEAD_CONNECTION_TIMEOUT_MS) {
      this.#reconnect(CONNECTION_LOST);
    } else if (now - this.#lastFrameAt > NO_FRAME_TIMEOUT_MS) {
      if (this.#state !== 'waiting') {
        this.#setState('waiting', 'Waiting for the camera…');
        this.#lastReasonAt = 0;
      }
      this.#trial.reset();
      this.#lastShownAt = now;
      this.#showReason();
    } else if (this.#surface && this.#state !== 'tap' && now - this.#lastShownAt > FROZEN_TIMEOUT_MS) {
      this.#abandoned++;
      this.#fail('The picture has frozen. Restarting…');
    } else {
      const failed = this.#trial.tick(this.#statistics, connection.stalled || this.#state !== 'playing');
      connection.stalled = false;
      if (failed) {
        this.#abandoned++;
        this.#usePolicy(this.#choosePolicy());
      }
    }
  }

  #measure(now) {
    const sample = this.#statistics.sample(now, this.#connection.clock);
    if (!sample) return;
    const { codec, width, height } = this.#init ?? {};
    this.#stats = { ...sample, policy: this.#policy, codec, width, height };
    this.#updateOverlay();
    this.dispatchEvent(new CustomEvent('stats', { detail: this.#stats }));
  }

  /** Asks the server why no picture is available, and shows the reason. */
  async #showReason() {
    const now = performance.now();
    if (now - this.#lastReasonAt < REASON_INTERVAL_MS) return;
    this.#lastReasonAt = now;
    const name = cameraName(this.url);
    const status = statusUrl(this.url);
    try {
      const response = await fetch(status);
      if (!response.ok) return;
      const { cameras, refusal } = await response.json();
      const camera = name ? cameras.find((camera) => camera.name === name) : cameras[0];
      if (this.#state !== 'waiting' && this.#state !== 'reconnecting') return;
      const reason = refusal ?? (camera ? camera.error : `There is no camera named "${name}".`);
      if (reason) this.#setState(this.#state, `No picture: ${reason}`);
    } catch {
      if (this.#state === 'reconnecting' && status.origin !== location.origin) {
        this.#setState('reconnecting', 'The camera is unreachable, or it does not allow this page to show its video.');
      }
    }
  }

  // ---- Display ----

  /** Copies the current picture to `canvas`. Returns false if no picture is available. */
  #copyPicture(canvas) {
    const from = this.#surface instanceof CanvasSurface ? this.#canvas : this.#video;
    const width = from.videoWidth ?? from.width;
    if (!width) return false;
    Object.assign(canvas, { width, height: from.videoHeight ?? from.height });
    const context = canvas.getContext('2d', { willReadFrequently: true });
    context.drawImage(from, 0, 0);
    return context.getImageData(0, 0, 1, 1).data[3] > 0; // transparent: no frame has been decoded yet
  }

  #setState(state, message) {
    const tap = state === 'tap' || (state === 'paused' && !this.#suspended && !this.controls);
    const text = document.createElement(tap ? 'button' : 'span');
    text.textContent = !tap ? message : state === 'tap' ? 'Tap to play' : '▶ Play';
    if (tap) text.onclick = () => this.play().catch(() => {});
    this.#notice.replaceChildren(...(text.textContent ? [text] : []));
    this.#notice.classList.toggle('tap', tap);
    if (this.#state === state && this.#message === message) return;
    this.#state = state;
    this.#message = message;
    this.#updateControls();
    this.dispatchEvent(new CustomEvent('statechange', { detail: { state, message } }));
  }

  #updateOverlay() {
    if (this.overlay && this.#stats) this.#overlay.textContent = statisticsText(this.#stats);
  }

  #updateControls() {
    this.#controls.hidden = !this.controls;
    if (!this.controls) return;
    const shown = { paused: !this.#wanted, recording: this.#recordings.size > 0, overlay: this.overlay };
    updateBar(this.#controls, shown, (name) => this.#onPress(name));
  }

  async #onPress(name) {
    const [recording] = this.#recordings;
    if (name === 'play') this.#wanted ? this.pause() : this.play().catch(() => {});
    else if (name === 'snapshot') download(await this.snapshot(), 'png');
    else if (name === 'record') recording ? download(recording.stop(), 'mp4') : this.record();
    else if (name === 'overlay') this.overlay = !this.overlay;
    else if (name === 'fullscreen') this.fullscreen();
  }
}

Object.defineProperties(BerryMse.prototype, {
  src: stringAttribute('src', ''),
  mode: stringAttribute('mode', 'auto'),
  fit: stringAttribute('fit', 'contain'),
  poster: stringAttribute('poster', ''),
  controls: booleanAttribute('controls'),
  overlay: booleanAttribute('overlay'),
});

measureScreen();
customElements.define('berry-mse', BerryMse);

// <berry-mse>: a BerryMSE camera, live, in any page. docs/embedding.md describes it, berrymse.d.ts
// has its types. A surface (Mse, Codec) shows what comes, and is made anew after what goes wrong.

// ---- Numbers: milliseconds where nothing else is said ----

/** This much of the past stays in the source buffer. Seconds. */
const KEEP = 8;
/** It starts its pipeline anew for every other rate, and for every jump: best left alone. */
const webkit = !/Chrom(e|ium)|Gecko\//.test(navigator.userAgent);
/** So far behind it hurries, it jumps. Seconds. */
const HURRY = webkit ? 0.08 : 0.2;
const JUMP = webkit ? 1 : 3;
/** Running dry makes the distance grow; so long that counts. Seconds. */
const FORGIVE = 20;
/** Connected, but no picture has come for so long: say so. */
const SILENCE = 1500;
/** Nothing at all has come for so long, not even an answer: the connection is dead. */
const DEAD = 4000;
/** Pictures come, but none is shown for so long: start again, with the next policy. */
const FROZEN = 3000;
/** Hidden for so long: hang up. */
const SLEEP = 5000;
/** Time stood still for so long: the machine was asleep. */
const NAP = 10000;
/** Wait before connecting again: at first, at the longest. */
const RETRY = [250, 1000];
/** A connection that takes longer is tried anew; every fourth time it may take longer. */
const CONNECT = [2000, 10000];
const TICK = 500;
/** Ticks over which a policy is judged, and how much of what came has to be shown. */
const JUDGE = 10;
const ENOUGH = 0.9;
/** A message later than this: the network stalled. */
const STALL = 250;

const Source = self.MediaSource ?? self.ManagedMediaSource;

// ---- Policies ----

/**
 * How to stay at the live edge. `rate`: playback rate; `edge`: how far in front of the end of what is
 * there to play, seconds. `step`: from frame to frame, `screen`: from refresh to refresh, seconds.
 * `behind`: how much farther from the end it is, right after something came. `slack`: seconds more to keep back, as it ran dry.
 */
const POLICIES = {
  // Faster than the camera: it waits for each frame, and shows it at once.
  'run-ahead': {
    surface: () => Mse,
    suits: ({ step, screen }) => !webkit && runAhead(step, screen) >= 1.2,
    rate: ({ step, screen }) => Math.max(1.2, runAhead(step, screen)),
    edge: () => 0.02,
  },
  // A steady distance, kept by playing a little faster or slower.
  nudge: {
    surface: () => Mse,
    suits: () => true,
    rate: ({ behind }) => (webkit ? 1 : 1 + Math.max(-0.1, Math.min(0.25, 2 * behind))),
    edge: ({ step, slack }) => distance(step, slack),
  },
  webcodecs: { surface: () => Codec, suits: () => true },
};

const ORDER = ['run-ahead', 'webcodecs', 'nudge'];
/** A little below one frame a refresh: at it, and at 2, some are skipped. */
const runAhead = (step, screen) => Math.min(1.75, (0.87 * step) / screen);
const distance = (step, slack) => 0.035 + step + slack;

/** Seconds from one refresh of the screen to the next. */
let screen = 1 / 60;
function measureScreen() {
  const times = [];
  const frame = (time) => {
    times.push(time);
    if (times.length <= 20) {
      requestAnimationFrame(frame);
    } else {
      const steps = times.slice(1).map((time, n) => time - times[n]).sort((a, b) => a - b);
      screen = Math.min(1 / 24, Math.max(1 / 360, steps[10] / 1000));
    }
  };
  requestAnimationFrame(frame);
}

// ---- What comes over the WebSocket ----
const TIMESCALE = 90000;

/** Init segment, if there is one, and frames of a message; docs/api.md has the layout. */
function parse(data) {
  const view = new DataView(data);
  const frames = [];
  let init = null;
  for (let at = 0; at + 8 <= data.byteLength; ) {
    const size = view.getUint32(at);
    if (size < 8) break;
    if (view.getUint32(at + 4) === 0x6d6f6f66) { // moof
      const end = at + 100 + view.getUint32(at + 100);
      frames.push({
        at,
        end,
        time: Number(view.getBigUint64(at + 64)),
        duration: view.getUint32(at + 48),
        key: view.getUint8(at + 92) === 2,
      });
      at = end;
    } else {
      at += size;
      init = new Uint8Array(data, 0, at);
    }
  }
  return { data, init, frames };
}

function join(parts) {
  const all = new Uint8Array(parts.reduce((sum, part) => sum + part.byteLength, 0));
  let at = 0;
  for (const part of parts) {
    all.set(new Uint8Array(part), at);
    at += part.byteLength;
  }
  return all;
}

/**
 * The server's clock: as in NTP, an answer belongs to the middle between question and answer; of
 * the last eight the one with the shortest way is right.
 */
class Clock {
  #asked = new Map();
  #answers = [];
  #count = 0;
  /** Frames of which it is known when they left: {time, published}. */
  marks = [];

  question() {
    this.#asked.set(++this.#count, performance.now());
    return JSON.stringify({ type: 'time', id: this.#count });
  }

  get count() {
    return this.#count;
  }

  answer({ id, now, frame }) {
    const received = performance.now();
    const asked = this.#asked.get(id);
    if (asked === undefined) return;
    this.#asked.delete(id);
    const trip = received - asked;
    this.#answers = [...this.#answers.slice(-7), { trip, offset: (asked + received) / 2 - now }];
    if (frame) this.marks = [...this.marks.slice(-7), frame];
  }

  get best() {
    return this.#answers.reduce((a, b) => (b.trip < a.trip ? b : a), { trip: Infinity });
  }
}

// ---- Surfaces: append(parsed message), change(init text), live(), close() ----

/** A <video> that is fed by Media Source Extensions. */
class Mse {
  #video;
  #source = new Source();
  #buffer = null;
  #queue = [];
  #stale = false;
  #jumped = false;
  #keys = [];
  #full = false;
  #slack = 0;
  #failed;
  #conditions;
  policy;

  constructor(video, policy, init, { failed, again, conditions }) {
    this.#video = video;
    this.policy = policy;
    this.#failed = failed;
    this.#conditions = conditions;
    const source = this.#source;
    source.addEventListener('sourceopen', () => {
      if (this.#buffer || this.#source !== source) return;
      this.#buffer = source.addSourceBuffer(mime(init));
      this.#buffer.addEventListener('updateend', () => this.#appended());
      this.#pump();
    });
    // iPhone: it says when it wants data. What has waited long is of no use.
    source.addEventListener('startstreaming', () => (this.#stale ? again() : this.#pump()));
    video.onwaiting = () => {
      if (!webkit && this.policy === POLICIES.nudge && !video.seeking) this.#slack = Math.min(0.2, this.#slack + 0.02);
    };
    video.src = URL.createObjectURL(source);
  }

  static plays = (init) => Boolean(Source?.isTypeSupported(mime(init)));

  /** Other parameters in mid-stream. What is queued belongs to the old ones. */
  change(init) {
    this.#queue.push(mime(init));
  }

  append({ data, frames }) {
    if (this.#stale) return;
    for (const { key, time } of frames) if (key) this.#keys.push(time / TIMESCALE);
    this.#queue.push(data);
    if (this.#source?.streaming === false && this.#queue.length > 300) {
      this.#queue = [];
      this.#stale = true;
    }
    this.#pump();
  }

  /** Everything that waits, as one: half the work. */
  #pump() {
    const buffer = this.#buffer;
    const source = this.#source;
    if (!buffer || !source || buffer.updating || !this.#queue.length) return;
    if (source.readyState !== 'open' || source.streaming === false) return;
    let parts = [];
    try {
      if (typeof this.#queue[0] === 'string') buffer.changeType(this.#queue.shift());
      const until = this.#queue.findIndex((part) => typeof part === 'string');
      parts = this.#queue.splice(0, until < 0 ? this.#queue.length : until);
      if (parts.length) buffer.appendBuffer(parts.length > 1 ? join(parts) : parts[0]);
      this.#full = false;
    } catch (error) {
      // Full: make room, and try once more.
      this.#queue.unshift(...parts);
      if (error.name === 'QuotaExceededError' && !this.#full && this.#forget(0)) this.#full = true;
      else this.#failed(`The browser could not take the picture (${error.name}).`);
    }
  }

  /** Cuts off what is older than so many seconds: whole groups, or the live one goes, too. */
  #forget(keep) {
    const old = this.#keys.filter((key) => key <= this.#video.currentTime - keep);
    if (old.length < 2 || this.#buffer.updating) return false;
    this.#keys.splice(0, old.length - 1);
    this.#buffer.remove(0, this.#keys[0]);
    return true;
  }

  #appended() {
    if (!this.#buffer) return;
    this.live();
    if (!this.#forget(KEEP)) this.#pump();
  }

  /** Sets the pace. Far behind it hurries, or jumps where that is less work for the decoder. */
  live() {
    const video = this.#video;
    const { buffered, currentTime } = video;
    // It breaks when it jumps while it begins.
    if (!buffered.length || (webkit && video.readyState < 2 && buffered.start(0) <= currentTime)) return;
    const end = buffered.end(buffered.length - 1);
    const lag = end - currentTime;
    const { step, screen } = this.#conditions();
    const at = { step, screen, slack: this.#slack, rate: video.playbackRate };
    const edge = this.policy.edge(at);
    const behind = at.behind = lag - edge;
    let rate = this.policy.rate(at);
    this.#slack *= 1 - step / FORGIVE;
    if (!this.#jumped || behind > JUMP || lag < -1 || (behind > HURRY && this.#keys.at(-1) > currentTime)) {
      if (Math.abs(behind) > 0.08) video.currentTime = end - edge;
      if (webkit && this.#jumped) this.#slack = Math.min(0.2, this.#slack + 0.02); // not every time
    } else if (behind > HURRY / 2 && !webkit) {
      // Most of the way until the next frame comes.
      rate = Math.max(rate, Math.min(16, 1 + (0.7 * behind) / step));
      // It was the network: no distance helps against that.
      if (behind > HURRY) this.#slack = Math.max(0, this.#slack - 0.02);
    }
    this.#jumped = true;
    if (Math.abs(rate - video.playbackRate) > 0.01) video.playbackRate = rate;
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

const mime = ({ codec }) => `video/mp4; codecs="${codec}"`;

/** A <canvas> that is fed by WebCodecs: every frame is decoded, the newest is drawn. */
class Codec {
  #canvas;
  #context;
  #decoder = null;
  #config = null;
  #codec;
  #newest = null;
  #drawing = 0;
  #shown;
  #failed;

  constructor(canvas, init, { failed, shown }) {
    this.#canvas = canvas;
    this.#context = canvas.getContext('2d', { alpha: false, desynchronized: true });
    this.#codec = init.codec;
    this.#shown = shown;
    this.#failed = failed;
  }

  static plays = () => Boolean(self.VideoDecoder);

  change(init) {
    this.#codec = init.codec;
  }

  append({ data, init, frames }) {
    try {
      if (init) this.#configure(init);
      for (const { at, end, time, key } of frames) {
        // Too slow: go on at a key frame.
        if (key && this.#decoder.decodeQueueSize > 60) {
          this.#decoder.reset();
          this.#decoder.configure(this.#config);
        }
        this.#decoder.decode(new EncodedVideoChunk({
          type: key ? 'key' : 'delta',
          timestamp: Math.round((time * 1e6) / TIMESCALE),
          data: new Uint8Array(data, at + 108, end - at - 108),
        }));
      }
    } catch (error) {
      this.#failed(`The browser could not take the picture (${error.name}).`);
    }
  }

  #configure(init) {
    let at = 4;
    while (at < init.length && String.fromCharCode(...init.subarray(at, at + 4)) !== 'avcC') at++;
    const view = new DataView(init.buffer, init.byteOffset);
    this.#config = {
      codec: this.#codec,
      description: init.slice(at + 4, at - 4 + view.getUint32(at - 4)),
      optimizeForLatency: true,
    };
    this.#decoder?.close();
    this.#decoder = new VideoDecoder({
      output: (frame) => this.#output(frame),
      error: () => this.#failed('The browser could not decode the picture.'),
    });
    this.#decoder.configure(this.#config);
  }

  #output(frame) {
    this.#newest?.close();
    this.#newest = frame;
    this.#drawing ||= requestAnimationFrame(() => this.#draw());
  }

  #draw() {
    this.#drawing = 0;
    const frame = this.#newest;
    this.#newest = null;
    if (!frame) return;
    const { displayWidth: width, displayHeight: height } = frame;
    if (this.#canvas.width !== width || this.#canvas.height !== height) {
      Object.assign(this.#canvas, { width, height });
    }
    this.#context.drawImage(frame, 0, 0, width, height);
    const time = frame.timestamp / 1e6;
    frame.close();
    this.#shown(time, performance.now(), 1);
  }

  live() {}

  close() {
    cancelAnimationFrame(this.#drawing);
    this.#newest?.close();
    this.#newest = null;
    if (this.#decoder && this.#decoder.state !== 'closed') this.#decoder.close();
  }
}

/** The frames as they came, from the next key frame on, as one MP4 file. */
class Recording {
  #parts = [];
  #codec = null;
  #last = 0;
  #shift = null;
  #end = 0;
  #stopped;

  constructor(stopped) {
    this.#stopped = stopped;
  }

  append({ data, init, frames }, { codec, width, height }) {
    if (!this.#stopped) return;
    if (init) {
      const kind = `${codec} ${width}x${height}`;
      // Players want one init segment: the file ends here.
      if (this.#codec && this.#codec !== kind) return void this.stop();
      // The server has started again, and its times with it: they go on where they were.
      if (frames.length && frames.at(-1).time < this.#last) this.#shift = this.#last = null;
      if (!this.#codec) this.#parts.push(init.slice());
      this.#codec = kind;
    }
    if (!this.#codec) return;
    for (const { at, end, time, duration, key } of frames) {
      if (this.#last && time <= this.#last) continue;
      if (this.#shift === null && !key) continue;
      this.#shift ??= this.#end - time;
      this.#last = time;
      this.#end = time + this.#shift + duration;
      const copy = data.slice(at, end);
      new DataView(copy).setBigUint64(64, BigInt(time + this.#shift));
      this.#parts.push(copy);
    }
  }
  get duration() {
    return this.#end / TIMESCALE;
  }
  stop() {
    this.#stopped?.(this);
    this.#stopped = null;
    return new Blob(this.#parts, { type: 'video/mp4' });
  }
}

// ---- The element ----

const style = new CSSStyleSheet();
style.replaceSync(`
  :host { display: block; position: relative; overflow: hidden; background: #000; color: #fff;
    font: 1rem/1.4 system-ui, sans-serif; }
  video, canvas { position: absolute; inset: 0; width: 100%; height: 100%;
    object-fit: var(--berry-mse-fit, contain); }
  [hidden] { display: none !important; }
  .still { filter: brightness(.5); }
  .notice { position: absolute; inset: 0; display: grid; place-content: center; padding: 8%;
    text-align: center; overflow-wrap: anywhere; }
  .still:not([hidden]) + .notice:not(.tap) { place-content: end start; padding: 1rem; text-align: start; }
  .notice span { background: rgb(0 0 0 / .6); border-radius: .5rem; padding: .5em .8em; }
  button { font: inherit; color: #fff; cursor: pointer; }
  :focus-visible { outline: 2px solid #fff; outline-offset: -2px; }
  .notice button { font-size: 1.25em; background: rgb(0 0 0 / .75); border: 2px solid #fff;
    border-radius: 3em; padding: .6em 1.4em; }
  .overlay { position: absolute; top: .5rem; left: .5rem; margin: 0; padding: .5em .8em;
    background: rgb(0 0 0 / .6); border-radius: .5rem; font: .8125rem/1.5 ui-monospace, monospace;
    pointer-events: none; }
  .controls { position: absolute; inset: auto 0 0; display: flex; justify-content: end; padding: .25rem;
    background: linear-gradient(transparent, rgb(0 0 0 / .6)); }
  @media (hover) { :host(:not(:hover)) .controls:not(:focus-within) { opacity: 0; } }
  .controls button { display: grid; place-items: center; width: 2.75rem; height: 2.75rem; padding: 0;
    background: none; border: 0; border-radius: 50%; }
  .controls button:first-child { margin-right: auto; }
  [aria-pressed=true] { color: #ff5c8a; }
  svg { width: 1.375rem; fill: none; stroke: currentColor; stroke-width: 2; stroke-linecap: round;
    stroke-linejoin: round; }
`);
const BUTTONS = {
  play: ['Pause', 'M8 4v16M16 4v16'],
  snapshot: ['Save this picture', 'M3 7h4l2-3h6l2 3h4v13H3zM12 9a4 4 0 100 8 4 4 0 000-8z'],
  record: ['Record', 'M12 5a7 7 0 100 14 7 7 0 000-14z'],
  overlay: ['Figures', 'M4 20v-8M10 20V4M16 20v-6M22 20H2'],
  fullscreen: ['Full screen', 'M4 9V4h5M15 4h5v5M20 15v5h-5M9 20H4v-5'],
};
const draw = (path) => `<svg viewBox="0 0 24 24" aria-hidden="true"><path d="${path}"/></svg>`;

const flag = (name) => ({
  get() { return this.hasAttribute(name); },
  set(on) { this.toggleAttribute(name, Boolean(on)); },
});
const text = (name, standard) => ({
  get() { return this.getAttribute(name) ?? standard; },
  set(value) { this.setAttribute(name, value); },
});

export class BerryMse extends HTMLElement {
  static observedAttributes = ['src', 'mode', 'fit', 'poster', 'controls', 'overlay'];

  #state = 'connecting';
  #message = '';
  #stats = null;
  #video = document.createElement('video');
  #canvas = document.createElement('canvas');
  #still = document.createElement('canvas');
  #notice = document.createElement('div');
  #overlay = document.createElement('pre');
  #controls = document.createElement('div');
  #wanted = false;
  #asleep = false;
  #socket = null;
  #surface = null;
  #init = null;
  #segment = null;
  #recordings = new Set();
  #clock = new Clock();
  /** Policies left so far. */
  #level = 0;
  #policy = null;
  #step = 1 / 30;

  #failures = 0;
  #ticks = 0;
  #timer = 0;
  #retry = 0;
  #sleep = 0;
  #lastTick = 0;
  #lastMessage = 0;
  #lastFrame = 0;
  #lastShown = 0;
  #explained = 0;

  #count = { received: 0, shown: 0, bytes: 0, skipped: 0, dropped: 0, reconnects: 0 };
  #seen = [];
  #second = null;
  #trial = null;
  #stalled = false;

  constructor() {
    super();
    const root = this.attachShadow({ mode: 'open' });
    root.adoptedStyleSheets = [style];
    const video = this.#video;
    // All four are needed to play by itself on an iPhone.
    video.defaultMuted = video.muted = true;
    video.autoplay = true;
    video.playsInline = true;
    video.disableRemotePlayback = true;
    video.addEventListener('error', () => {
      if (video.hasAttribute('src')) this.#fail('The browser could not decode the picture.');
    });
    const notice = this.#notice;
    const named = { video, canvas: this.#canvas, still: this.#still, notice,
      overlay: this.#overlay, controls: this.#controls };
    for (const [name, part] of Object.entries(named)) {
      part.part = part.className = name;
      part.hidden = part !== video && part !== notice;
      root.append(part);
    }
    notice.role = 'status';
  }

  connectedCallback() {
    document.addEventListener('visibilitychange', this.#visibility);
    addEventListener('online', this.#online);
    this.#wanted = this.autoplay;
    this.#asleep = false;
    this.#begin();
  }

  disconnectedCallback() {
    document.removeEventListener('visibilitychange', this.#visibility);
    removeEventListener('online', this.#online);
    clearInterval(this.#timer);
    clearTimeout(this.#sleep);
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
      this.#paint();
      this.#press();
    } else if (this.isConnected) {
      if (name === 'src') this.#still.hidden = true;
      this.#begin();
    }
  }

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
    this.#asleep = false;
    if (!this.#socket) this.#begin();
    else if (this.#surface instanceof Mse) {
      if (this.#state === 'tap') this.#show('connecting', 'Connecting …');
      this.#start();
    }
    return new Promise((resolve, reject) => {
      const look = () => {
        const end = { playing: resolve, tap: reject, unsupported: reject, paused: reject }[this.#state];
        if (end) this.removeEventListener('statechange', look);
        end?.(end === reject ? new DOMException(this.#message || this.#state, 'NotAllowedError') : undefined);
      };
      this.addEventListener('statechange', look);
      look();
    });
  }
  pause() {
    this.#wanted = false;
    this.#begin();
  }
  snapshot(type = 'image/png', quality) {
    let canvas = this.#still;
    if (this.#surface) this.#copy(canvas = document.createElement('canvas'));
    if (!canvas.width || (canvas === this.#still && canvas.hidden)) {
      return Promise.reject(new DOMException('There is no picture.', 'InvalidStateError'));
    }
    return new Promise((resolve) => { canvas.toBlob(resolve, type, quality); });
  }
  record() {
    const recording = new Recording((it) => {
      this.#recordings.delete(it);
      this.#press();
    });
    this.#recordings.add(recording);
    if (this.#segment) recording.append({ init: this.#segment, frames: [] }, this.#init);
    this.#press();
    return recording;
  }

  /** From scratch, or not at all: nothing is held against anybody. */
  #begin() {
    this.#failures = this.#level = 0;
    clearInterval(this.#timer);
    if (!this.#wanted || this.#asleep) {
      this.#close();
      this.#show('paused', '');
    } else {
      this.#lastTick = Date.now();
      this.#timer = setInterval(() => this.#tick(), TICK);
      if (this.#state !== 'reconnecting') this.#show('connecting', 'Connecting …');
      this.#connect();
    }
  }

  #connect() {
    this.#close();
    if (!Source && !self.VideoDecoder) {
      return this.#fail('This browser cannot play live pictures (no Media Source Extensions).', true);
    }
    let socket;
    try {
      socket = this.#socket = new WebSocket(this.url);
    } catch (error) {
      this.#fail(`There is no camera at ${this.getAttribute('src')} (${error.message}).`, true);
      return;
    }
    this.#clock = new Clock();
    socket.binaryType = 'arraybuffer';
    socket.onopen = () => {
      clearTimeout(this.#retry);
      this.#lastMessage = this.#lastFrame = performance.now();
      socket.send(this.#clock.question());
    };
    socket.onmessage = ({ data }) => {
      const now = performance.now();
      if (now - this.#lastMessage > STALL) this.#stalled = true;
      this.#lastMessage = now;
      if (typeof data === 'string') this.#text(JSON.parse(data));
      else this.#binary(parse(data));
    };
    socket.onclose = () => this.#again('The connection is lost. Trying again …');
    const slow = this.#failures % 4 === 3;
    this.#retry = setTimeout(socket.onclose, CONNECT[Number(slow)]);
  }

  #close() {
    clearTimeout(this.#retry);
    if (this.#socket) {
      this.#socket.onopen = this.#socket.onclose = this.#socket.onmessage = null;
      this.#socket.close();
    }
    if (this.#surface) {
      if (this.#copy(this.#still)) this.#still.hidden = false;
      this.#surface.close();
    }
    this.#socket = this.#surface = this.#init = this.#segment = this.#second = this.#trial = null;
    this.#seen = [];
  }

  /** After a while that grows. */
  #again(message) {
    if (!this.isConnected || !this.#wanted || this.#asleep) return;
    this.#close();
    this.#show('reconnecting', message);
    this.#count.reconnects++;
    const wait = Math.min(RETRY[0] * 2 ** this.#failures++, RETRY[1]);
    this.#retry = setTimeout(() => this.#connect(), wait * (0.5 + Math.random()));
    if (this.#failures > 1) this.#explain();
  }
  #fail(message, fatal = false) {
    this.dispatchEvent(new CustomEvent('error', { detail: { message, fatal } }));
    if (!fatal) return this.#again(message);
    this.#close();
    this.#show('unsupported', message);
  }

  #online = () => {
    if (this.#state === 'reconnecting' && !document.hidden) this.#connect();
  };

  #visibility = () => {
    clearTimeout(this.#sleep);
    if (document.hidden) {
      this.#sleep = setTimeout(() => this.#hangUp(), SLEEP);
    } else if (this.#asleep) {
      this.#asleep = false;
      this.#begin();
    } else {
      this.#lastShown = performance.now();
      this.#trial = null;
      this.#surface?.live();
      if (this.#surface instanceof Mse && this.#video.paused) this.#start();
    }
  };

  #hangUp() {
    if (this.#recordings.size || this.shadowRoot.pictureInPictureElement) return;
    this.#asleep = true;
    this.#begin();
  }

  #text(message) {
    if (message.type === 'time') this.#clock.answer(message);
    else if (message.type === 'dropped') this.#count.dropped += message.frames;
    else if (message.type === 'init') this.#changed(message);
  }
  #changed(init) {
    this.#init = init;
    this.#step = 1 / (init.framerate || 30);
    const policy = this.#choose();
    if (!policy) {
      this.#fail(`This browser cannot play this camera's pictures (${init.codec}).`, true);
    } else if (!this.#surface) {
      this.#open(policy);
    } else {
      this.#surface.change(init);
      this.#pace(policy);
    }
  }
  #choose() {
    const can = (name) => POLICIES[name].surface().plays(this.#init);
    if (POLICIES[this.mode] && can(this.mode)) return this.mode;
    const names = ORDER.filter((name) => can(name) && POLICIES[name].suits(this.#conditions()));
    return names[Math.min(this.#level, names.length - 1)];
  }

  #conditions = () => ({ step: this.#step, screen });

  #pace(policy) {
    this.#trial = null;
    this.#surface.policy = POLICIES[this.#policy = policy];
    // Another surface needs a start of its own.
    if (!(this.#surface instanceof POLICIES[policy].surface())) this.#connect();
  }

  #open(policy) {
    const codec = POLICIES[policy].surface() === Codec;
    const tools = {
      failed: (message) => this.#fail(message),
      again: () => this.#connect(),
      shown: (...frame) => this.#shown(...frame),
      conditions: this.#conditions,
    };
    this.#surface = codec
      ? new Codec(this.#canvas, this.#init, tools)
      : new Mse(this.#video, POLICIES[policy], this.#init, tools);
    this.#canvas.hidden = !codec;
    this.#video.hidden = codec;
    this.#pace(policy);
    this.#lastShown = performance.now();
    if (!codec) {
      this.#follow();
      this.#start();
    }
  }

  #start() {
    this.#video.play()?.catch((error) => {
      if (error.name !== 'NotAllowedError') return; // an interrupted start, not a refusal
      this.#show('tap', '');
    });
  }

  #binary(message) {
    const { init, frames } = message;
    const now = performance.now();
    this.#lastFrame = now;
    this.#count.bytes += message.data.byteLength;
    if (init) this.#segment = init;
    else this.#count.received += frames.length;
    if (frames.length) this.#step = frames.at(-1).duration / TIMESCALE;
    this.#surface?.append(message);
    for (const recording of this.#recordings) recording.append(message, this.#init);
  }
  #follow() {
    const video = this.#video;
    const surface = this.#surface;
    let before = 0;
    const shown = (now, frame) => {
      if (surface !== this.#surface) return;
      const count = frame ? Math.max(1, frame.presentedFrames - before) : 1;
      before = frame?.presentedFrames;
      this.#shown(frame?.mediaTime ?? video.currentTime, frame?.presentationTime ?? now, count);
      video.requestVideoFrameCallback?.(shown);
    };
    if (video.requestVideoFrameCallback) video.requestVideoFrameCallback(shown);
    else video.ontimeupdate = () => shown(performance.now());
  }

  /** `time` in the stream, seconds; `at` on this page's clock. */
  #shown(time, at, count) {
    this.#lastShown = performance.now();
    this.#failures = 0;
    this.#count.shown += count;
    this.#seen = [...this.#seen.slice(-127), { time, at }];
    if (this.#state === 'playing' || (this.#state === 'tap' && this.#video.paused)) return;
    if (this.#state === 'waiting' && performance.now() - this.#lastFrame > SILENCE) return;
    this.#still.hidden = true;
    this.#show('playing', '');
  }

  #tick() {
    const slept = Date.now() - this.#lastTick > NAP;
    this.#lastTick = Date.now();
    if (document.hidden || this.#socket?.readyState !== WebSocket.OPEN) return;
    if (slept) return this.#connect();
    const now = performance.now();
    const silent = now - this.#lastMessage;
    if (this.#clock.count < 5 || silent > TICK || this.#ticks % 4 === 0) {
      this.#socket.send(this.#clock.question());
    }
    if (++this.#ticks % 2 === 0) this.#measure(now);
    this.#surface?.live();
    if (silent > DEAD) {
      this.#again('The connection is lost. Trying again …');
    } else if (now - this.#lastFrame > SILENCE) {
      if (this.#state !== 'waiting') {
        this.#show('waiting', 'Waiting for the camera …');
        this.#explained = 0;
      }
      this.#trial = null;
      this.#lastShown = now;
      this.#explain();
    } else if (this.#surface && this.#state !== 'tap' && now - this.#lastShown > FROZEN) {
      this.#level++;
      this.#fail('The picture stands still. Starting again …');
    } else {
      this.#judge();
    }
  }
  #judge() {
    const { received, shown } = this.#count;
    const trial = this.#trial;
    if (!trial || this.#stalled || this.#state !== 'playing') {
      // The first second is not counted, nor one in which the network stalled.
      this.#trial = { ticks: -2, bad: trial?.bad ?? 0 };
      this.#stalled = false;
    } else if (++trial.ticks === 0) {
      Object.assign(trial, { received, shown });
    } else if (trial.ticks === JUDGE) {
      const came = received - trial.received;
      const bad = came > 0 && shown - trial.shown < came * ENOUGH;
      this.#trial = { ticks: 0, bad: bad ? trial.bad + 1 : 0, received, shown };
      if (this.#trial.bad < 2) return;
      this.#level++;
      this.#pace(this.#choose());
    }
  }

  #measure(now) {
    const { received, shown, bytes } = this.#count;
    const before = this.#second;
    this.#second = { at: now, received, shown, bytes };
    if (!before) return;
    const seconds = (now - before.at) / 1000;
    const rate = (name) => (this.#count[name] - before[name]) / seconds;
    this.#count.skipped += Math.max(0, received - before.received - (shown - before.shown));
    const { trip, offset } = this.#clock.best;
    // When it left is known of a few frames.
    let age = this.#stats?.age ?? null;
    this.#clock.marks = this.#clock.marks.filter(({ time, published }) => {
      const seen = this.#seen.find((frame) => Math.abs(frame.time * TIMESCALE - time) < 90);
      if (seen) age = seen.at - published - offset;
      return !seen;
    });
    const { skipped, dropped, reconnects } = this.#count;
    const { codec, width, height } = this.#init ?? {};
    this.#stats = {
      age,
      roundTrip: Number.isFinite(trip) ? trip : null,
      shown: rate('shown'),
      received: rate('received'),
      bitrate: rate('bytes') * 8,
      policy: this.#policy,
      skipped, dropped, reconnects, codec, width, height,
    };
    this.#paint();
    this.dispatchEvent(new CustomEvent('stats', { detail: this.#stats }));
  }

  async #explain() {
    const now = performance.now();
    if (now - this.#explained < 2000) return;
    this.#explained = now;
    const { url } = this;
    const name = decodeURIComponent(url.pathname.match(/\/live\/([^/]+)$/)?.[1] ?? '');
    const status = new URL(name ? '../api/status' : 'api/status', url);
    status.protocol = status.protocol.replace('ws', 'http');
    try {
      const answer = await fetch(status);
      if (!answer.ok) return;
      const { cameras, refusal } = await answer.json();
      const camera = name ? cameras.find((camera) => camera.name === name) : cameras[0];
      if (this.#state !== 'waiting' && this.#state !== 'reconnecting') return;
      const why = refusal ?? (camera ? camera.error : `There is no camera ${name}.`);
      if (why) this.#show(this.#state, `No picture: ${why}`);
    } catch {
      if (this.#state === 'reconnecting' && status.origin !== location.origin) {
        this.#show('reconnecting', 'The camera cannot be reached, or does not allow this page to show it.');
      }
    }
  }
  #copy(canvas) {
    const from = this.#surface instanceof Codec ? this.#canvas : this.#video;
    const width = from.videoWidth ?? from.width;
    if (!width) return false;
    Object.assign(canvas, { width, height: from.videoHeight ?? from.height });
    const context = canvas.getContext('2d', { willReadFrequently: true });
    context.drawImage(from, 0, 0);
    return context.getImageData(0, 0, 1, 1).data[3] > 0; // or there was nothing to draw
  }

  #show(state, message) {
    const tap = state === 'tap' || (state === 'paused' && !this.#asleep && !this.controls);
    const words = document.createElement(tap ? 'button' : 'span');
    words.textContent = !tap ? message : state === 'tap' ? 'Tap to play' : '▶ Play';
    if (tap) words.onclick = () => this.play().catch(() => {});
    this.#notice.replaceChildren(...(words.textContent ? [words] : []));
    this.#notice.classList.toggle('tap', tap);
    if (this.#state === state && this.#message === message) return;
    this.#state = state;
    this.#message = message;
    this.#press();
    this.dispatchEvent(new CustomEvent('statechange', { detail: { state, message } }));
  }

  #paint() {
    if (!this.overlay || !this.#stats) return;
    const { age, roundTrip, shown, received, bitrate, skipped, dropped, reconnects, policy } = this.#stats;
    const ms = (time) => `${time?.toFixed(time < 9.95 ? 1 : 0) ?? '?'} ms`;
    this.#overlay.textContent = `age         ${ms(age)}
round trip  ${ms(roundTrip)}
shown       ${shown.toFixed(1)} of ${received.toFixed(1)} fps
skipped     ${skipped}, dropped ${dropped}
bit rate    ${(bitrate / 1e6).toFixed(2)} Mbit/s
policy      ${policy}
reconnects  ${reconnects}`;
  }

  #press() {
    const bar = this.#controls;
    bar.hidden = !this.controls;
    if (bar.hidden) return;
    if (!bar.firstChild) {
      bar.innerHTML = Object.entries(BUTTONS).map(([name, [title, path]]) =>
        `<button type="button" name="${name}" title="${title}" aria-label="${title}">${draw(path)}</button>`).join('');
      bar.onclick = ({ target }) => this.#act(target.closest('button')?.name);
    }
    const { play, record, overlay } = bar.children;
    play.title = play.ariaLabel = this.#wanted ? 'Pause' : 'Play';
    play.innerHTML = draw(this.#wanted ? BUTTONS.play[1] : 'M7 4l13 8-13 8z');
    record.ariaPressed = this.#recordings.size > 0;
    overlay.ariaPressed = this.overlay;
  }

  async #act(name) {
    const [recording] = this.#recordings;
    if (name === 'play') this.#wanted ? this.pause() : this.play().catch(() => {});
    else if (name === 'snapshot') save(await this.snapshot(), 'png');
    else if (name === 'record') recording ? save(recording.stop(), 'mp4') : this.record();
    else if (name === 'overlay') this.overlay = !this.overlay;
    else if (name === 'fullscreen') this.fullscreen();
  }
  fullscreen() {
    if (document.fullscreenElement) document.exitFullscreen();
    else if (this.requestFullscreen) this.requestFullscreen();
    else this.#video.webkitEnterFullscreen?.(); // iPhone
  }
}

Object.defineProperties(BerryMse.prototype, {
  src: text('src', ''),
  mode: text('mode', 'auto'),
  fit: text('fit', 'contain'),
  poster: text('poster', ''),
  controls: flag('controls'),
  overlay: flag('overlay'),
});

function save(blob, ending) {
  const link = document.createElement('a');
  link.href = URL.createObjectURL(blob);
  link.download = `camera.${ending}`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
}

measureScreen();
customElements.define('berry-mse', BerryMse);

// <berry-mse>: a BerryMSE camera, live, in any page.
//
//   <script type="module" src="http://cam/berrymse.js"></script>
//   <berry-mse src="http://cam/live/front"></berry-mse>
//
// Without src it shows the first camera of the server that this file came from. The picture fills
// the element; where there is none, the element says why, in words.
//
// Event `statechange`, detail {state, message}: connecting, playing, waiting (connected, but the
// camera sends nothing), reconnecting, tap (the browser wants a tap first), unsupported.
//
// docs/embedding.md describes the rest. No dependencies, no build step.

/** Behind the live edge by more than this at the first append: jump there. Seconds. */
const START_LAG = 0.1;
/** The same later on. */
const MAX_LAG = 0.25;
/** Where a jump lands: this far in front of the last frame's end. Seconds. */
const EDGE = 0.02;
/** This much of the past is kept in the source buffer, and so often it is cut. Seconds. */
const KEEP = 8;
const CUT_EVERY = 2;
/** Connected, but nothing has come for so long: say so. Milliseconds. */
const SILENCE = 1500;
/** Pictures come, but none is shown for so long: start again. Milliseconds. */
const FROZEN = 4000;
/** Wait before connecting again: at first, at the longest. Milliseconds. */
const RETRY = [250, 5000];

const Source = self.MediaSource ?? self.ManagedMediaSource;

const style = new CSSStyleSheet();
style.replaceSync(`
  :host { display: block; position: relative; overflow: hidden; background: #000; color: #fff;
    font: 1rem/1.4 system-ui, sans-serif; }
  video, canvas { position: absolute; inset: 0; width: 100%; height: 100%;
    object-fit: var(--berry-mse-fit, contain); }
  [hidden] { display: none !important; }
  canvas { filter: brightness(.5); }
  .notice { position: absolute; inset: 0; display: grid; place-content: center; padding: 8%;
    text-align: center; text-wrap: balance; overflow-wrap: anywhere; }
  canvas:not([hidden]) + .notice { place-content: end start; padding: 1rem; text-align: start; }
  .notice span { background: rgb(0 0 0 / .6); border-radius: .5rem; padding: .5em .8em; }
  button { font: inherit; font-size: 1.25em; color: #fff; background: rgb(255 255 255 / .15);
    border: 2px solid #fff; border-radius: 3em; padding: .6em 1.4em; cursor: pointer; }
`);

class BerryMse extends HTMLElement {
  static observedAttributes = ['src'];

  /** What is to be seen: see the states above. */
  state = 'connecting';
  /** The same in words; empty while it plays. */
  message = '';
  #video = document.createElement('video');
  #still = document.createElement('canvas');
  #notice = document.createElement('div');
  #socket = null;
  #source = null;
  #buffer = null;
  #queue = [];
  #init = null;
  #jumped = false;
  #lastCut = 0;
  #lastMessage = 0;
  #lastFrame = 0;
  #failures = 0;
  #timer = 0;
  #retry = 0;
  #explained = 0;

  constructor() {
    super();
    const root = this.attachShadow({ mode: 'open' });
    root.adoptedStyleSheets = [style];
    const video = this.#video;
    // All four are needed to play by itself on an iPhone.
    video.muted = true;
    video.autoplay = true;
    video.playsInline = true;
    video.disableRemotePlayback = true;
    video.part = 'video';
    video.addEventListener('error', () => this.#again('The browser could not decode the picture.'));
    this.#still.hidden = true;
    this.#notice.className = 'notice';
    this.#notice.setAttribute('role', 'status');
    this.#notice.part = 'notice';
    root.append(video, this.#still, this.#notice);
  }

  connectedCallback() {
    document.addEventListener('visibilitychange', this.#shown);
    this.#timer = setInterval(() => this.#watch(), 500);
    this.#connect();
  }

  disconnectedCallback() {
    document.removeEventListener('visibilitychange', this.#shown);
    clearInterval(this.#timer);
    this.#close();
    this.#still.hidden = true;
  }

  attributeChangedCallback() {
    if (this.isConnected) {
      this.#failures = 0;
      this.#connect();
    }
  }

  /** The <video> that plays. */
  get video() {
    return this.#video;
  }

  /** Where the pictures come from. */
  get url() {
    const url = new URL(this.getAttribute('src') || 'live', import.meta.url);
    url.protocol = url.protocol.replace('http', 'ws');
    return url;
  }

  #connect() {
    this.#close();
    if (!Source) {
      this.#show('unsupported', 'This browser cannot play live pictures (no Media Source Extensions).');
      return;
    }
    if (this.state !== 'reconnecting') this.#show('connecting', 'Connecting …');
    const socket = new WebSocket(this.url);
    this.#socket = socket;
    this.#lastMessage = performance.now();
    socket.binaryType = 'arraybuffer';
    socket.onmessage = ({ data }) => {
      this.#lastMessage = performance.now();
      if (typeof data === 'string') this.#text(JSON.parse(data));
      else this.#append(data);
    };
    socket.onclose = () => this.#again('The connection is lost. Trying again …');
  }

  #close() {
    clearTimeout(this.#retry);
    if (this.#socket) {
      this.#socket.onclose = this.#socket.onmessage = null;
      this.#socket.close();
    }
    if (this.#video.src) {
      this.#freeze();
      URL.revokeObjectURL(this.#video.src);
      this.#video.removeAttribute('src');
      this.#video.load();
    }
    this.#socket = this.#source = this.#buffer = this.#init = null;
    this.#queue = [];
    this.#jumped = false;
  }

  /** Starts again after a while that grows, never in step with other viewers. */
  #again(message) {
    this.#close();
    this.#show('reconnecting', message);
    const wait = Math.min(RETRY[0] * 2 ** this.#failures++, RETRY[1]);
    this.#retry = setTimeout(() => this.#connect(), wait * (0.5 + Math.random()));
    if (this.#failures > 1) this.#explain();
  }

  #text(message) {
    if (message.type !== 'init') return;
    this.#init = message;
    const type = `video/mp4; codecs="${message.codec}"`;
    if (!Source.isTypeSupported(type)) {
      this.#close();
      this.#show('unsupported', `This browser cannot play this camera's pictures (${message.codec}).`);
    } else if (!this.#source) {
      this.#open(type);
    } else if (this.#buffer) {
      // Other parameters in mid-stream. What is queued belongs to the old ones.
      this.#queue.push(type);
      this.#pump();
    }
  }

  #open(type) {
    const source = new Source();
    this.#source = source;
    source.addEventListener('sourceopen', () => {
      if (source !== this.#source || this.#buffer) return;
      this.#buffer = source.addSourceBuffer(type);
      this.#buffer.addEventListener('updateend', () => {
        if (source === this.#source) this.#appended();
      });
      this.#pump();
    });
    this.#video.src = URL.createObjectURL(source);
    this.#lastFrame = performance.now();
    this.#follow();
    this.#play();
  }

  #play() {
    this.#video.play()?.catch((error) => {
      if (error.name !== 'NotAllowedError') return; // an interrupted start, not a refusal
      this.#show('tap', '');
      const button = document.createElement('button');
      button.textContent = 'Tap to play';
      button.onclick = () => {
        this.#show('connecting', '');
        this.#play();
      };
      this.#notice.replaceChildren(button);
    });
  }

  /** Notices each frame that is shown. */
  #follow() {
    const source = this.#source;
    const shown = () => {
      if (source !== this.#source) return;
      this.#lastFrame = performance.now();
      this.#failures = 0;
      if (this.state !== 'playing') {
        this.#still.hidden = true;
        this.#show('playing', '');
      }
      this.#video.requestVideoFrameCallback?.(shown);
    };
    if (this.#video.requestVideoFrameCallback) this.#video.requestVideoFrameCallback(shown);
    else this.#video.ontimeupdate = shown;
  }

  #append(data) {
    this.#queue.push(data);
    this.#pump();
  }

  /** Appends everything that waits, as one: half the work of doing it one by one. */
  #pump() {
    const buffer = this.#buffer;
    if (!buffer || buffer.updating || !this.#queue.length || this.#source.readyState !== 'open') return;
    try {
      if (typeof this.#queue[0] === 'string') buffer.changeType(this.#queue.shift());
      const until = this.#queue.findIndex((part) => typeof part === 'string');
      const parts = this.#queue.splice(0, until < 0 ? this.#queue.length : until);
      if (parts.length) buffer.appendBuffer(parts.length > 1 ? join(parts) : parts[0]);
    } catch (error) {
      this.#again(`The browser could not take the picture (${error.name}).`);
    }
  }

  #appended() {
    this.#live();
    const { currentTime } = this.#video;
    if (currentTime - this.#lastCut > KEEP + CUT_EVERY && !this.#buffer.updating) {
      this.#lastCut = currentTime - KEEP;
      this.#buffer.remove(0, this.#lastCut);
    } else {
      this.#pump();
    }
  }

  /** Jumps to the newest picture when it is too far away. */
  #live() {
    const { buffered, currentTime } = this.#video;
    if (!buffered.length) return;
    const end = buffered.end(buffered.length - 1);
    if (end - currentTime > (this.#jumped ? MAX_LAG : START_LAG) || currentTime > end + 1) {
      this.#video.currentTime = end - EDGE;
      if (!this.#jumped) this.#lastCut = end - EDGE;
    }
    this.#jumped = true;
  }

  #shown = () => {
    if (document.hidden) return;
    this.#lastFrame = performance.now();
    this.#live();
    if (this.#video.paused && this.#source) this.#play();
  };

  /** Looks whether pictures still come, and are shown. */
  #watch() {
    if (document.hidden || this.#socket?.readyState !== WebSocket.OPEN) return;
    const now = performance.now();
    if (now - this.#lastMessage > SILENCE) {
      if (this.state !== 'waiting') {
        this.#show('waiting', 'Waiting for the camera …');
        this.#explained = 0;
      }
      this.#explain();
    } else if (this.state === 'waiting' && now - this.#lastFrame < SILENCE) {
      this.#show('playing', '');
    } else if (this.#buffer && this.state !== 'tap' && now - this.#lastFrame > FROZEN) {
      this.#again('The picture stands still. Starting again …');
    }
  }

  /** Asks the server what is wrong, and says it. */
  async #explain() {
    const now = performance.now();
    if (now - this.#explained < 2000) return;
    this.#explained = now;
    const url = this.url;
    const name = decodeURIComponent(url.pathname.match(/\/live\/([^/]+)$/)?.[1] ?? '');
    const status = new URL(name ? '../api/status' : 'api/status', url);
    status.protocol = status.protocol.replace('ws', 'http');
    try {
      const answer = await fetch(status);
      if (!answer.ok) return;
      const { cameras, refusal } = await answer.json();
      const camera = name ? cameras.find((camera) => camera.name === name) : cameras[0];
      if (this.state !== 'waiting' && this.state !== 'reconnecting') return;
      if (refusal) this.#show(this.state, `No picture: ${refusal}`);
      else if (!camera) this.#show(this.state, name ? `There is no camera “${name}”.` : 'No camera is configured.');
      else if (camera.error) this.#show(this.state, `No picture from the camera: ${camera.error}`);
    } catch {
      // The server is away: that is being said already.
    }
  }

  /** Keeps the last picture in sight while there is no new one. */
  #freeze() {
    const { videoWidth: width, videoHeight: height } = this.#video;
    if (!width || this.#video.readyState < 2) return;
    Object.assign(this.#still, { width, height });
    this.#still.getContext('2d').drawImage(this.#video, 0, 0);
    this.#still.hidden = false;
  }

  #show(state, message) {
    const said = document.createElement('span');
    said.textContent = message;
    this.#notice.replaceChildren(...(message ? [said] : []));
    if (this.state === state && this.message === message) return;
    this.state = state;
    this.message = message;
    this.dispatchEvent(new CustomEvent('statechange', { detail: { state, message } }));
  }
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

customElements.define('berry-mse', BerryMse);

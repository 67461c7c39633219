// The WebSocket to one camera: connects with a time limit, reconnects with increasing delays, and
// detects network stalls. Times are in milliseconds.

import { Clock } from './clock.js';

/** Delay before reconnecting: initial and maximum. */
const RETRY_DELAY_MS = [250, 1000];
/** Time limit for a connection attempt: normally, and for every fourth attempt. */
const CONNECT_TIMEOUT_MS = [2000, 10000];
/** Maximum gap between two messages. A longer gap means that the network has stalled. */
const NETWORK_STALL_MS = 250;

/** Returns the delay before reconnecting after `failures` consecutive failures. `random` is from 0 to 1. */
export function retryDelay(failures, random) {
  const [first, longest] = RETRY_DELAY_MS;
  return Math.min(first * 2 ** failures, longest) * (0.5 + random);
}

/** Returns the camera name in a stream URL; '' for the first camera. */
export const cameraName = (url) => decodeURIComponent(url.pathname.match(/\/live\/([^/]+)$/)?.[1] ?? '');

/** Returns the status URL of the server in a stream URL. */
export function statusUrl(url) {
  const status = new URL(cameraName(url) ? '../api/status' : 'api/status', url);
  status.protocol = status.protocol.replace('ws', 'http');
  return status;
}

export class Connection {
  #socket = null;
  #timer = 0;
  #handlers;
  /** Number of consecutive failures. */
  failures = 0;
  /** The estimate of the server's clock for this connection. */
  clock = new Clock();
  /** Time at which the last message arrived. */
  lastMessageAt = 0;
  /** Whether the network has stalled. The code that reads it resets it. */
  stalled = false;

  /**
   * `handlers` are `opened()`, `text(object)`, `data(buffer)`, and `lost()`, which is also called
   * after a timeout.
   */
  constructor(handlers) {
    this.#handlers = handlers;
  }

  /** Whether a connection is open or being attempted. */
  get active() {
    return this.#socket !== null;
  }

  get open() {
    return this.#socket?.readyState === WebSocket.OPEN;
  }

  /** Starts connecting. Throws if `url` is not a WebSocket URL. */
  connect(url) {
    this.close();
    const socket = this.#socket = new WebSocket(url);
    this.clock = new Clock();
    socket.binaryType = 'arraybuffer';
    socket.onopen = () => {
      clearTimeout(this.#timer);
      this.lastMessageAt = performance.now();
      this.#handlers.opened();
      this.askTime();
    };
    socket.onmessage = ({ data }) => {
      const now = performance.now();
      if (now - this.lastMessageAt > NETWORK_STALL_MS) this.stalled = true;
      this.lastMessageAt = now;
      if (typeof data !== 'string') return this.#handlers.data(data);
      const message = JSON.parse(data);
      if (message.type === 'time') this.clock.onReply(message, performance.now());
      else this.#handlers.text(message);
    };
    socket.onclose = () => this.#handlers.lost();
    const patient = this.failures % 4 === 3;
    this.#timer = setTimeout(socket.onclose, CONNECT_TIMEOUT_MS[Number(patient)]);
  }

  /** Calls `connect` after a delay that grows with every failure. */
  retry(connect) {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(connect, retryDelay(this.failures++, Math.random()));
  }

  /** Asks for the server's time. */
  askTime() {
    this.#socket.send(this.clock.request(performance.now()));
  }

  close() {
    clearTimeout(this.#timer);
    const socket = this.#socket;
    if (!socket) return;
    socket.onopen = socket.onclose = socket.onmessage = null;
    socket.close();
    this.#socket = null;
  }
}

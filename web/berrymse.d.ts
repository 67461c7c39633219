// Types of <berry-mse> (berrymse.js). docs/embedding.md describes the element in detail.

/** What the element shows. */
export type BerryMseState =
  /** Until the first picture. */
  | 'connecting'
  /** Live. */
  | 'playing'
  /** Connected, but the camera sends no frames. */
  | 'waiting'
  /** The connection is lost, and the element tries to reconnect until it succeeds. */
  | 'reconnecting'
  /** The browser requires a tap before it starts playback. */
  | 'tap'
  /** Paused, not started (autoplay="false"), or the page is hidden. The element is disconnected. */
  | 'paused'
  /** This browser cannot play the stream. */
  | 'unsupported';

/** How to stay at the live edge. */
export type BerryMsePolicy = 'run-ahead' | 'nudge' | 'webcodecs';

/** Statistics, reported once per second. */
export interface BerryMseStats {
  /**
   * Age of the picture in milliseconds: from the moment the server handed the frame to the viewers to
   * the moment the browser handed it to the screen. Null until it is known.
   */
  age: number | null;
  /** Shortest recent round trip to the server, in milliseconds. Null until it is known. */
  roundTrip: number | null;
  /** Frames shown per second. */
  shown: number;
  /** Frames received per second. */
  received: number;
  /** Bits received per second. */
  bitrate: number;
  /** Frames received but not shown, since the element was created. */
  skipped: number;
  /** Frames that the server did not send because this viewer was too slow, since the element was created. */
  dropped: number;
  /** Number of reconnections since the element was created. */
  reconnects: number;
  /** The policy in use. */
  policy: BerryMsePolicy | null;
  /** RFC 6381 codec string. */
  codec?: string;
  /** Width of the video in pixels. */
  width?: number;
  /** Height of the video in pixels. */
  height?: number;
}

/** A recording in progress. */
export interface BerryMseRecording {
  /** Seconds recorded so far. */
  readonly duration: number;
  /** Ends the recording. Returns a fragmented MP4 with the frames as the camera sent them. */
  stop(): Blob;
}

export interface BerryMseEventMap {
  statechange: CustomEvent<{ state: BerryMseState; message: string }>;
  stats: CustomEvent<BerryMseStats>;
  /** Playback failed in this browser. Unless `fatal` is true, the element retries. */
  error: CustomEvent<{ message: string; fatal: boolean }>;
}

export class BerryMse extends HTMLElement {
  /** URL of `/live/CAMERA` on a server; '' for the first camera of the server that served the script. */
  src: string;
  /** The policy to use; 'auto' chooses one. */
  mode: 'auto' | BerryMsePolicy;
  /** As in CSS `object-fit`. */
  fit: string;
  /** URL of an image to show before the first picture. */
  poster: string;
  /** Whether the control bar is shown. */
  controls: boolean;
  /** Whether the statistics are shown. */
  overlay: boolean;
  /** Whether playback starts automatically. */
  autoplay: boolean;
  /** As in <video>. Streams have no sound yet. */
  muted: boolean;
  readonly paused: boolean;
  readonly state: BerryMseState;
  /** The state in words; empty while playing. */
  readonly message: string;
  readonly stats: BerryMseStats | null;
  /** The WebSocket URL of the stream. */
  readonly url: URL;
  /** The <video>; hidden and empty while WebCodecs is in use. */
  readonly video: HTMLVideoElement;
  /** Starts playback. The promise is fulfilled once a live picture is shown. */
  play(): Promise<void>;
  /** Disconnects. The last picture stays visible. */
  pause(): void;
  /** Returns the current picture as an image file. `quality` is 0 to 1, for JPEG and WebP. */
  snapshot(type?: string, quality?: number): Promise<Blob>;
  /** Starts a recording at the next key frame. */
  record(): BerryMseRecording;
  /** Toggles full screen. */
  fullscreen(): void;

  addEventListener<K extends keyof BerryMseEventMap>(type: K,
    listener: (this: BerryMse, event: BerryMseEventMap[K]) => unknown,
    options?: boolean | AddEventListenerOptions): void;
  addEventListener(type: string, listener: EventListenerOrEventListenerObject,
    options?: boolean | AddEventListenerOptions): void;
}

declare global {
  interface HTMLElementTagNameMap {
    'berry-mse': BerryMse;
  }
}

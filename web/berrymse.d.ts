// Types of <berry-mse> (berrymse.js). docs/embedding.md says the same with more words.

/** What is to be seen. */
export type BerryMseState =
  /** The first picture is on its way. */
  | 'connecting'
  /** Live. */
  | 'playing'
  /** Connected, but the camera sends nothing. */
  | 'waiting'
  /** The connection is lost; it is tried again and again. */
  | 'reconnecting'
  /** The browser wants a tap first. */
  | 'tap'
  /** Not wanted (pause(), autoplay="false"), or the page is hidden. Costs nothing. */
  | 'paused'
  /** This browser cannot play it. */
  | 'unsupported';

/** How to stay at the live edge. */
export type BerryMsePolicy = 'run-ahead' | 'nudge' | 'webcodecs';

/** How it is doing, once a second. */
export interface BerryMseStats {
  /**
   * From the moment a frame left the camera's thread in the server to the moment it was handed to the
   * screen, milliseconds. Null until it is known.
   */
  age: number | null;
  /** Shortest way to the server and back of late, milliseconds. */
  roundTrip: number | null;
  /** Frames a second that were shown, over the last second. */
  shown: number;
  /** Frames a second that came. */
  received: number;
  /** Bits a second that came. */
  bitrate: number;
  /** Frames that came and were not shown, since the element was made. */
  skipped: number;
  /** Frames that the server left out because this viewer was too slow. */
  dropped: number;
  /** How often the connection was made anew. */
  reconnects: number;
  /** Which policy is at work. */
  policy: BerryMsePolicy | null;
  /** RFC 6381 codec string. */
  codec?: string;
  /** Pixels. */
  width?: number;
  /** Pixels. */
  height?: number;
}

/** A recording that runs. */
export interface BerryMseRecording {
  /** Seconds recorded so far. */
  readonly duration: number;
  /** Ends it: the frames as the camera sent them, in a fragmented MP4. */
  stop(): Blob;
}

export interface BerryMseEventMap {
  statechange: CustomEvent<{ state: BerryMseState; message: string }>;
  stats: CustomEvent<BerryMseStats>;
  /** Something broke here. `fatal`: it will not be tried again. */
  error: CustomEvent<{ message: string; fatal: boolean }>;
}

export class BerryMse extends HTMLElement {
  /** `/live/CAMERA` of a server; '' for the first camera of the server the script came from. */
  src: string;
  /** Which policy; 'auto' finds out. */
  mode: 'auto' | BerryMsePolicy;
  /** As CSS object-fit. */
  fit: string;
  /** An image to show before the first picture. */
  poster: string;
  /** Whether there are buttons. */
  controls: boolean;
  /** Whether the figures of `stats` are to be seen. */
  overlay: boolean;
  /** Whether it starts by itself. */
  autoplay: boolean;
  /** As of a <video>. Cameras have no sound so far. */
  muted: boolean;
  readonly paused: boolean;
  readonly state: BerryMseState;
  /** The state in words; empty while it plays. */
  readonly message: string;
  readonly stats: BerryMseStats | null;
  /** Where the pictures come from. */
  readonly url: URL;
  /** The <video>; hidden, and empty, while WebCodecs are at work. */
  readonly video: HTMLVideoElement;
  /** Plays; fulfilled once a live picture is to be seen. */
  play(): Promise<void>;
  /** Hangs up; the last picture stays. */
  pause(): void;
  /** The picture that is to be seen. `quality`: 0 to 1, for JPEG and WebP. */
  snapshot(type?: string, quality?: number): Promise<Blob>;
  /** Keeps what comes from the next key frame on. */
  record(): BerryMseRecording;
  /** Full screen, and back. */
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

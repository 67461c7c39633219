// A surface: a <canvas> drawn with WebCodecs. Every frame is decoded on arrival, and the newest is drawn.

import { TIMESCALE, decoderConfiguration, frameBytes } from './parse.js';

/** Maximum number of frames queued in the decoder. With more, the surface skips to the next key frame. */
const MAX_DECODE_QUEUE = 60;

export class CanvasSurface {
  #canvas;
  #context;
  #decoder = null;
  #config = null;
  #codec;
  /** The newest decoded frame that has not been drawn yet. */
  #newest = null;
  #drawing = 0;
  #shown;
  #failed;

  /** `failed(message)` reports an error, and `shown(time, at, count)` reports drawn frames. */
  constructor(canvas, init, { failed, shown }) {
    this.#canvas = canvas;
    this.#context = canvas.getContext('2d', { alpha: false, desynchronized: true });
    this.#codec = init.codec;
    this.#shown = shown;
    this.#failed = failed;
  }

  static canPlay = () => Boolean(self.VideoDecoder);

  change(init) {
    this.#codec = init.codec;
  }

  append(message) {
    try {
      if (message.init) this.#configure(message.init);
      for (const frame of message.frames) {
        if (frame.key && this.#decoder.decodeQueueSize > MAX_DECODE_QUEUE) {
          this.#decoder.reset();
          this.#decoder.configure(this.#config);
        }
        this.#decoder.decode(new EncodedVideoChunk({
          type: frame.key ? 'key' : 'delta',
          timestamp: Math.round((frame.time * 1e6) / TIMESCALE),
          data: frameBytes(message, frame),
        }));
      }
    } catch (error) {
      this.#failed(`The browser rejected the video data (${error.name}).`);
    }
  }

  #configure(init) {
    this.#config = {
      codec: this.#codec,
      description: decoderConfiguration(init),
      optimizeForLatency: true,
    };
    this.#decoder?.close();
    this.#decoder = new VideoDecoder({
      output: (frame) => this.#output(frame),
      error: () => this.#failed('The browser could not decode the video.'),
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

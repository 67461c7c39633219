// Estimates the server's clock as NTP does: the server's time is assumed to lie halfway between request
// and reply, and the reply with the shortest recent round trip is the most accurate. Pure: all times are
// passed in, in milliseconds.

/** Number of replies, and of published frames, to keep. */
const HISTORY_LENGTH = 8;

export class Clock {
  #sentAt = new Map();
  #replies = [];
  #count = 0;
  /** Frames whose publication time is known: `{ time, published }`. */
  published = [];

  /** Returns the next request to send. */
  request(now) {
    this.#sentAt.set(++this.#count, now);
    return JSON.stringify({ type: 'time', id: this.#count });
  }

  /** Number of requests sent so far. */
  get count() {
    return this.#count;
  }

  /** Processes the server's reply, received at `receivedAt`. */
  onReply({ id, now, frame }, receivedAt) {
    const sentAt = this.#sentAt.get(id);
    if (sentAt === undefined) return;
    this.#sentAt.delete(id);
    const roundTrip = receivedAt - sentAt;
    const offset = (sentAt + receivedAt) / 2 - now;
    this.#replies = [...this.#replies.slice(1 - HISTORY_LENGTH), { roundTrip, offset }];
    if (frame) this.published = [...this.published.slice(1 - HISTORY_LENGTH), frame];
  }

  /** The most accurate reply. `offset` is this clock minus the server's. */
  get best() {
    return this.#replies.reduce((a, b) => (b.roundTrip < a.roundTrip ? b : a), { roundTrip: Infinity });
  }
}

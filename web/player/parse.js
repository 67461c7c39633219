// Parses the binary messages of the WebSocket: MP4 init segments and fragments of one frame each.
// docs/api.md describes the byte layout. Pure: no DOM, no state.

/** Timescale of all times in the stream, in ticks per second. */
export const TIMESCALE = 90000;

const MOOF = 0x6d6f6f66;

/**
 * Splits a binary message into its init segment, if it has one, and its frames. `at` is the offset of the
 * first byte of a frame's fragment, and `end` the offset just past its last byte; `time` and `duration`
 * are in ticks.
 */
export function parseMessage(data) {
  const view = new DataView(data);
  const frames = [];
  let init = null;
  for (let at = 0; at + 8 <= data.byteLength; ) {
    const size = view.getUint32(at);
    if (size < 8) break;
    if (view.getUint32(at + 4) === MOOF) {
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

/** Returns the bytes of a frame within its message: NAL units, each after its 4-byte length. */
export const frameBytes = ({ data }, { at, end }) => new Uint8Array(data, at + 108, end - at - 108);

/** Returns a copy of a frame's fragment with a different decode time. */
export function retimedFragment({ data }, { at, end }, time) {
  const copy = data.slice(at, end);
  new DataView(copy).setBigUint64(64, BigInt(time));
  return copy;
}

/** Returns the content of the `avcC` box of an init segment: the decoder configuration of ISO/IEC 14496-15. */
export function decoderConfiguration(init) {
  let at = 4;
  while (at < init.length && String.fromCharCode(...init.subarray(at, at + 4)) !== 'avcC') at++;
  const view = new DataView(init.buffer, init.byteOffset);
  return init.slice(at + 4, at - 4 + view.getUint32(at - 4));
}

/** Concatenates array buffers. */
export function concatenate(parts) {
  const all = new Uint8Array(parts.reduce((sum, part) => sum + part.byteLength, 0));
  let at = 0;
  for (const part of parts) {
    all.set(new Uint8Array(part), at);
    at += part.byteLength;
  }
  return all;
}

/** Returns the MIME type for an `init` text message. */
export const mimeType = ({ codec }) => `video/mp4; codecs="${codec}"`;

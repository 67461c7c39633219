// Creates messages with the byte layout in docs/api.md and arbitrary content.

/** Returns a fragment with one frame. `time` and `duration` are in ticks. */
export function fragment({ time, duration = 3000, key = false, bytes = [1, 2, 3] }) {
  const data = Buffer.alloc(108 + bytes.length);
  data.writeUInt32BE(100, 0);
  data.write('moof', 4);
  data.writeUInt32BE(duration, 48);
  data.writeBigUInt64BE(BigInt(time), 64);
  data[92] = key ? 2 : 1;
  data.writeUInt32BE(8 + bytes.length, 100);
  data.write('mdat', 104);
  data.set(bytes, 108);
  return data;
}

const box = (type, ...content) => {
  const body = Buffer.concat(content);
  const head = Buffer.alloc(8);
  head.writeUInt32BE(8 + body.length);
  head.write(type, 4);
  return Buffer.concat([head, body]);
};

/** Returns an init segment with the given decoder configuration. */
export const init = (configuration = [1, 0x42, 0xc0, 0x1f]) =>
  Buffer.concat([box('ftyp', Buffer.from('iso5')), box('moov', box('avcC', Buffer.from(configuration)))]);

/** Returns a message that consists of the given parts. */
export function message(...parts) {
  const all = Buffer.concat(parts);
  return all.buffer.slice(all.byteOffset, all.byteOffset + all.length);
}

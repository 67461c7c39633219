// ./ci/bench first-picture: measures the time from navigation to the first picture in Chromium, for one
// executable or for two in alternation: BERRYMSE is the new one (default: target/release/berrymse), and OLD
// is the one to compare it with. Measures the server's own page and a page of another site, over loopback and
// through a proxy that adds a round trip of 50 ms. Prints medians and quartiles and, for two executables, the
// ratio of the medians, new to old.
// ROUNDS=20: number of page loads for each kind and executable. QUICK=1: 5 page loads.

import { mkdirSync, writeFileSync } from 'node:fs';
import { connect, createServer } from 'node:net';
import { fileURLToPath } from 'node:url';
import { notes } from './delay.mjs';
import { browser as launch, executable, host, otherHost, serve, site } from './lib.mjs';

const ROUND_TRIP_MS = 50;
const rounds = Number(process.env.ROUNDS ?? (process.env.QUICK ? 5 : 20));
const results = fileURLToPath(new URL('../../bench-results', import.meta.url));

/**
 * A TCP proxy to a local port that delays all data by half a round trip in each direction, and the
 * first data of a connection by one more round trip, for the TCP handshake.
 */
async function slowProxy(port) {
  const sockets = new Set();
  const server = createServer({ noDelay: true }, (client) => {
    const upstream = connect({ port, host: '127.0.0.1', noDelay: true });
    const opened = performance.now();
    const forward = (from, to, earliest) => {
      from.on('data', (data) => {
        const at = Math.max(performance.now(), earliest) + ROUND_TRIP_MS / 2;
        setTimeout(() => to.writable && to.write(data), at - performance.now());
      });
      from.on('end', () => setTimeout(() => to.end(), ROUND_TRIP_MS / 2));
      from.on('error', () => to.destroy());
    };
    forward(client, upstream, opened + ROUND_TRIP_MS);
    forward(upstream, client, 0);
    sockets.add(client).add(upstream);
  });
  await new Promise((resolve) => { server.listen(0, '127.0.0.1', resolve); });
  return {
    port: server.address().port,
    stop: () => new Promise((resolve) => {
      server.close(resolve);
      for (const socket of sockets) socket.destroy();
    }),
  };
}

/** Starts a server with two ports: its own, and that of a slow proxy. */
async function start(program) {
  const server = await serve('[server]\norigins = ["*"]\nmax_connections_per_address = 500\n[[camera]]\nsource = "test-card"\n',
    0, [], program);
  const proxy = await slowProxy(server.port);
  return { ports: { loopback: server.port, [`${ROUND_TRIP_MS} ms`]: proxy.port }, stop: async () => { await proxy.stop(); await server.stop(); } };
}

const programs = { ...(process.env.OLD && { old: process.env.OLD }), new: executable };
const servers = {};
for (const [name, program] of Object.entries(programs)) servers[name] = await start(program);

let embedded;
const other = await site((path) => (path === '/' ? embedded : undefined));
const browser = await launch();

/** Returns the time from navigation to the first picture, in ms, with an empty browser cache. */
async function load(kind, port) {
  const origin = `http://${host}:${port}`;
  embedded = `<!doctype html><meta charset="utf-8"><link rel="icon" href="data:,">
    <script type="module" src="${origin}/berrymse.js"></script>
    <berry-mse src="${origin}/live" style="display: block; width: 1280px; height: 720px"></berry-mse>`;
  const context = await browser.newContext({ viewport: { width: 1280, height: 800 } });
  try {
    const page = await context.newPage();
    await page.addInitScript(notes);
    await page.goto(kind === 'own page' ? `${origin}/` : `http://${otherHost}:${other.port}/`, { waitUntil: 'commit' });
    await page.waitForFunction(() => window.shown.length > 0);
    return await page.evaluate(() => window.shown[0][1]);
  } finally {
    await context.close();
  }
}

const quantile = (values, part) => [...values].sort((a, b) => a - b)[Math.floor((values.length - 1) * part)];
const times = {};
for (let round = -1; round < rounds; round++) { // the first round is a warm-up
  for (const kind of ['own page', 'another site']) {
    for (const network of Object.keys(servers.new.ports)) {
      const names = Object.keys(servers);
      for (const name of round % 2 ? names : names.reverse()) {
        const time = await load(kind, servers[name].ports[network]);
        if (round >= 0) ((times[`${kind}, ${network}`] ??= {})[name] ??= []).push(time);
      }
    }
  }
}
console.log(`${'page, network'.padEnd(24)} ${'program'.padEnd(8)} ${'median'.padStart(8)} ${'quartiles'.padStart(14)}   ms, ${rounds} loads`);
for (const [what, found] of Object.entries(times)) {
  for (const [name, values] of Object.entries(found)) {
    const [low, middle, high] = [0.25, 0.5, 0.75].map((part) => quantile(values, part).toFixed(0));
    console.log(`${what.padEnd(24)} ${name.padEnd(8)} ${middle.padStart(8)} ${`${low} to ${high}`.padStart(14)}`);
  }
  if (found.old) console.log(`${''.padEnd(24)} ${'ratio'.padEnd(8)} ${(quantile(found.new, 0.5) / quantile(found.old, 0.5)).toFixed(3).padStart(8)}`);
}
mkdirSync(results, { recursive: true });
writeFileSync(`${results}/first-picture.json`, JSON.stringify(times));
await browser.close();
await other.stop();
for (const server of Object.values(servers)) await server.stop();

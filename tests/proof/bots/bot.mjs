// A bot that keeps its users in memory and saves them to one JSON file, in one of three styles, as real bots do.
// It knows nothing of a backup agent.  For the proof it keeps an acknowledgement log outside its data folder and holds a
// side lock (a file made with O_EXCL) while it writes, so that "between the bot's writes" has a meaning.
//
// stdin: pause, resume, reload, backup, stop (one a line).  stdout: one JSON object a line, an answer to each of them.
import fs from 'node:fs';
import path from 'node:path';
import readline from 'node:readline';
import { createHash } from 'node:crypto';
import { parseArgs } from 'node:util';
import { setTimeout as sleep } from 'node:timers/promises';

const { values: options } = parseArgs({
  options: {
    file: { type: 'string' },
    'temp-dir': { type: 'string' },
    side: { type: 'string' }, // folder of acks.jsonl and lock
    style: { type: 'string', default: 'inplace' },
    rate: { type: 'string', default: '20' },
    seed: { type: 'string', default: '1' },
    records: { type: 'string', default: '500' },
    paused: { type: 'boolean', default: false },
    fsync: { type: 'boolean', default: false },
    once: { type: 'boolean', default: false }, // leave after the start
    'empty-on-corrupt': { type: 'boolean', default: false },
    'prune-dir': { type: 'string' },
  },
});
const acksPath = path.join(options.side, 'acks.jsonl');
const lockPath = path.join(options.side, 'lock');
const now = () => Number(process.hrtime.bigint()); // CLOCK_MONOTONIC, as Python's monotonic_ns; exact for 104 days
const digestOf = (bytes) => createHash('sha256').update(bytes).digest('hex');
const say = (message) => fs.writeSync(1, `${JSON.stringify(message)}\n`);
const acknowledge = (line) => fs.appendFileSync(acksPath, `${JSON.stringify(line)}\n`);

let seed = Number(options.seed) >>> 0 || 1;
function random(limit) { // xorshift32: the same seed gives the same run
  seed ^= seed << 13; seed >>>= 0;
  seed ^= seed >>> 17;
  seed ^= seed << 5; seed >>>= 0;
  return seed % limit;
}

const NAMES = ['Ada', 'Zoë', 'Łukasz', '小林', 'Noor', 'Ivy 🌱', 'Omar', 'Søren'];
const ITEMS = ['potion', 'copper key', 'map of the north', 'lantern', 'rope', 'mushroom'];

function newMemory(count) {
  const memory = { meta: { version: 0, saved_by: 'node' } };
  for (let n = 0; n < count; n += 1) {
    const id = `1${String(10_000_000 + random(89_999_999))}${String(100_000_000 + n)}`; // 18 digits
    memory[id] = {
      name: `${NAMES[random(NAMES.length)]} ${n}`,
      cartridge: random(1_000_000),
      inventory: { gold: random(5000), items: [{ id: ITEMS[random(ITEMS.length)], count: 1 + random(9) }] },
    };
  }
  return memory;
}

function change(memory) {
  memory.meta.version += 1;
  const ids = Object.keys(memory);
  for (let n = 0; n < 5 && ids.length > 1; n += 1) {
    const user = memory[ids[1 + random(ids.length - 1)]];
    user.cartridge += random(100);
    const { items } = user.inventory;
    if (items.length > 1 && random(2)) items.pop(); // the file grows and shrinks
    else items.push({ id: ITEMS[random(ITEMS.length)], count: 1 + random(99) });
  }
  return { version: memory.meta.version, bytes: Buffer.from(JSON.stringify(memory, null, 1)) };
}

async function locked(work) {
  for (;;) {
    try {
      fs.closeSync(fs.openSync(lockPath, 'wx'));
      break;
    } catch (error) {
      if (error.code !== 'EEXIST') throw error;
      await sleep(1);
    }
  }
  try {
    return await work();
  } finally {
    fs.unlinkSync(lockPath);
  }
}

function microsecondsOf(call) {
  const before = now();
  const result = call();
  return [result, Math.round((now() - before) / 1000)];
}

async function writeInPlace({ version, bytes }) {
  const start = now();
  const [fd, delay] = microsecondsOf(() => fs.openSync(options.file, 'w', 0o644));
  const step = Math.ceil(bytes.length / 5);
  for (let at = 0; at < bytes.length; at += step) {
    fs.writeSync(fd, bytes, at, Math.min(step, bytes.length - at));
    await sleep(1 + random(3)); // the descriptor stays open, the file stays torn
  }
  fs.closeSync(fd);
  acknowledge({ kind: 'finished', version, sha256: digestOf(bytes), start_ns: start, end_ns: now(), delay_us: delay });
}

async function writeByRename({ version, bytes }) {
  const start = now();
  const temp = path.join(options['temp-dir'], `temp_users_${process.pid}_${version}.json`);
  const fd = fs.openSync(temp, 'w', 0o644);
  fs.writeSync(fd, bytes);
  if (options.fsync) fs.fsyncSync(fd);
  fs.closeSync(fd);
  const [, delay] = microsecondsOf(() => fs.renameSync(temp, options.file));
  acknowledge({ kind: 'finished', version, sha256: digestOf(bytes), start_ns: start, end_ns: now(), delay_us: delay });
}

// Several whole-file writes in flight to the same file, none awaited before the next: what `fs.promises.writeFile`
// without `await` does (open, write, close; spelt out here to time the open).  A longer one can leave its tail behind a
// shorter one, so what the file holds afterwards is looked at before it is called finished.
async function writeBurst(memory) {
  const start = now();
  const states = [change(memory), change(memory), change(memory)];
  for (const { version, bytes } of states) acknowledge({ kind: 'issued', version, sha256: digestOf(bytes), start_ns: start, end_ns: start });
  const delays = await Promise.all(states.map(async ({ bytes }) => {
    const before = now();
    const handle = await fs.promises.open(options.file, 'w', 0o644);
    const delay = Math.round((now() - before) / 1000);
    await handle.writeFile(bytes);
    await handle.close();
    return delay;
  }));
  acknowledge({ ...await outcomeOf(states), start_ns: start, end_ns: now(), delay_us: Math.max(...delays) });
}

// What came of overlapping writes: one of them whole (finished), or a mix (torn).  A whole document that is none of them
// was put there by someone else ("foreign"); it is given a second to go away.
async function outcomeOf(states) {
  const deadline = now() + 1e9;
  for (;;) {
    const live = fs.readFileSync(options.file);
    const sha256 = digestOf(live);
    const mine = states.find(({ bytes }) => bytes.equals(live));
    if (mine) return { kind: 'finished', version: mine.version, sha256 };
    const version = states.at(-1).version;
    try {
      JSON.parse(live);
    } catch {
      return { kind: 'torn', version, sha256 };
    }
    if (now() > deadline) return { kind: 'foreign', version, sha256 };
    await sleep(2);
  }
}

const writeOnce = {
  inplace: (memory) => writeInPlace(change(memory)),
  rename: (memory) => writeByRename(change(memory)),
  burst: writeBurst,
}[options.style];

// Some bots keep their own backups under the same names and delete all but the ten newest by modification time.
function backUpAndPrune() {
  const folder = options['prune-dir'];
  fs.mkdirSync(folder, { recursive: true });
  const stamp = new Date().toISOString().replace(/[:.]/g, '-');
  fs.copyFileSync(options.file, path.join(folder, `users_backup_${stamp}.json`));
  const found = fs.readdirSync(folder).filter((name) => name.startsWith('users_backup_'))
    .map((name) => ({ name, mtime: fs.statSync(path.join(folder, name)).mtimeMs }))
    .sort((a, b) => b.mtime - a.mtime);
  for (const { name } of found.slice(10)) fs.unlinkSync(path.join(folder, name));
  return found.slice(10).map(({ name }) => name);
}

async function load() {
  const start = now();
  let text;
  try {
    text = fs.readFileSync(options.file, 'utf8');
  } catch (error) {
    if (error.code !== 'ENOENT') throw error;
    const memory = newMemory(Number(options.records));
    await locked(() => writeByRename(change(memory)));
    return { memory, emptied: false, start };
  }
  try {
    return { memory: JSON.parse(text), emptied: false, start };
  } catch (error) {
    if (!options['empty-on-corrupt']) throw error;
    fs.writeFileSync(options.file, '{}');
    return { memory: {}, emptied: true, start };
  }
}

const { memory: loaded, emptied, start } = await load();
let memory = loaded;
const usersIn = (it) => Object.keys(it).filter((key) => key !== 'meta').length;
say({ event: 'started', users: usersIn(memory), emptied, took_ms: (now() - start) / 1e6 });
if (options.once) process.exit(0);
memory.meta ??= { version: 0, saved_by: 'node' };

let paused = options.paused;
const commands = [];
const input = readline.createInterface({ input: process.stdin });
input.on('line', (line) => commands.push(line));
input.on('close', () => commands.push('stop'));

const period = 1000 / Number(options.rate);
let next = performance.now();
for (;;) {
  const command = commands.shift();
  if (command === 'stop') break;
  if (command === 'pause') paused = true;
  if (command === 'resume') { paused = false; next = performance.now(); }
  if (command === 'reload') memory = JSON.parse(fs.readFileSync(options.file, 'utf8'));
  const pruned = command === 'backup' ? backUpAndPrune() : undefined;
  if (command) say({ event: command, version: memory.meta.version, pruned });
  if (paused) {
    await sleep(1);
    continue;
  }
  const wait = next - performance.now();
  if (wait > 0) await sleep(Math.min(wait, 5));
  else {
    await locked(() => writeOnce(memory));
    next = Math.max(next + period, performance.now());
  }
}
say({ event: 'stop', version: memory.meta.version });
process.exit(0);

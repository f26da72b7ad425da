// The same as lookups.py by Node's two ways: dns.lookup, which is getaddrinfo, and dns.resolve4 and
// resolve6, which are a resolver of its own (c-ares), by turns.
//
//     node lookups.js NETWORK.json COUNT TASKS
"use strict";
const dns = require("dns").promises;
// A question by TCP is not repeated when its time is over, which is 5 s else: an emulated machine that starts
// five programs is slower at times.
const own = new dns.Resolver({ timeout: 30000 });
const fs = require("fs");
const net = require("net");

const PORT = 8000, WINDOW = 20, ROUNDS = 2, TWIN_EVERY = 10;
const zone = JSON.parse(fs.readFileSync(process.argv[2], "utf8"));
const total = Number(process.argv[3]), tasks = Number(process.argv[4]);
const listed = Object.entries(zone.listed), unlisted = Object.entries(zone.unlisted);
// Milliseconds.
let slowest = 0;
const counts = { lookups: 0, connects: 0, nxdomain: 0, refused: 0, wrong: 0 };

function wrong(text) {
	counts.wrong += 1;
	console.log(`node: ${text}`);
}

const pick = (list) => list[Math.floor(Math.random() * list.length)];

/** The address at which the server says that it was reached. */
function page(address) {
	return new Promise((resolve, reject) => {
		const socket = net.connect({ host: address, port: PORT });
		let said = "";
		socket.setTimeout(60000, () => socket.destroy(new Error("no answer")));
		socket.on("connect", () => socket.write("GET / HTTP/1.0\r\n\r\n"));
		socket.on("data", (data) => (said += data));
		socket.on("error", reject);
		socket.on("end", () => resolve(said.split("\r\n\r\n").pop().trim()));
	});
}

const ofNone = (error) => {
	if (error.code !== "ENODATA") throw error;
	return [];
};

async function asked(name, isOwn) {
	if (!isOwn) return (await dns.lookup(name, { all: true })).map((found) => found.address);
	const both = [own.resolve4(name).catch(ofNone), own.resolve6(name).catch(ofNone)];
	return (await Promise.all(both)).flat();
}

async function operation(number) {
	const windows = listed.length / WINDOW;
	const start = (Math.floor((number * ROUNDS * windows) / total) % windows) * WINDOW;
	const [name, addresses] = listed[start + Math.floor(Math.random() * WINDOW)];
	const began = performance.now();
	const found = await asked(name, number % 2 === 1);
	slowest = Math.max(slowest, performance.now() - began);
	counts.lookups += 1;
	if ([...found].sort().join() !== [...addresses].sort().join())
		wrong(`${name} is ${addresses}, and the answer was ${found}`);
	const address = pick(found);
	if ((await page(address)) !== address) wrong(`${address} was not reached`);
	counts.connects += 1;
}

async function twin(number) {
	const [name, addresses] = unlisted[number % unlisted.length];
	try {
		wrong(`${name}: ${await asked(name, number % 2 === 1)}`);
	} catch (error) {
		if (error.code !== "ENOTFOUND") wrong(`${name}: ${error}`);
		counts.nxdomain += 1;
	}
	for (const address of addresses) {
		try {
			await page(address);
			wrong(`${address} was reached`);
		} catch (error) {
			if (error.code !== "EPERM") wrong(`${address}: ${error}`);
			counts.refused += 1;
		}
	}
}

async function work(first) {
	for (let number = first; number < total; number += tasks) {
		await operation(number).catch((error) => wrong(`operation ${number}: ${error}`));
		if (number % TWIN_EVERY === 0) await twin(number / TWIN_EVERY);
	}
}

Promise.all(Array.from({ length: tasks }, (_, first) => work(first))).then(() => {
	console.log(`slowest node ${Math.round(slowest)} ms`);
	console.log(`tally node ${Object.values(counts).join(" ")}`);
});

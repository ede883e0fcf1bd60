import { expect, test } from "vitest";
import { HELP, peerUrl, readArguments, readTicket, WrongUsage } from "../../src/terminal/arguments";

const PEER = "12D3KooWGYTm2FkZgVZ8LAb8yCKvqGjJ8ySSnJxZUZsB8Y3wq7Zz";
const URL_ = "http://127.0.0.1:8080";

test("options are read in both forms, wherever they stand", () => {
  const argv = ["--slots", "3", URL_, `--dial=${PEER}`, "--meta", "zone=a", "--meta", "gpu=", "--memory-max", "64M"];
  const options = readArguments([...argv, "--grace", "1.5m", "--log-json", "--ns", "other", "--duration-max=2h"])!;
  expect(options.gateway.host).toBe("127.0.0.1:8080");
  expect([options.slots, options.dial, options.namespace, options.graceS]).toEqual([3, PEER, "other", 90]);
  expect([...options.labels]).toEqual([["zone", "a"], ["gpu", ""]]);
  expect(options.limits).toEqual({ memoryBytesMax: 64 << 20, durationMaxS: 7200 });
  expect([options.logJson, options.log]).toEqual([true, "info"]);
});

test("help is what every option is in", () => {
  expect(readArguments(["--help"])).toBeNull();
  for (const flag of HELP.match(/--[a-z-]+/g)!) {
    const argv = flag === "--log-json" ? [flag, URL_] : [flag, "no", URL_];
    try {
      readArguments(argv);
    } catch (error) {
      expect((error as Error).message).not.toContain("unrecognized");
    }
  }
});

test.each([
  [[], "which gateway?: expected http://HOST:PORT, once"],
  [[URL_, URL_], "one address too many: expected http://HOST:PORT, once"],
  [["ftp://a"], '"ftp://a" is no address of a gateway: expected http://HOST:PORT'],
  [["12D3KooW"], '"12D3KooW" is no address of a gateway: expected http://HOST:PORT'],
  [["http://a:1/x"], '"http://a:1/x" is no address of a gateway: expected http://HOST:PORT'],
  [["http://example.org"], '"http://example.org": another machine is not spoken with in the open: expected https://'],
  [["--slots", "0", URL_], 'argument --slots: "0": expected a whole number from 1 to 1024'],
  [["--slots", URL_], `argument --slots: "${URL_}": expected a whole number from 1 to 1024`],
  [[URL_, "--slots"], "argument --slots: expected a value"],
  [["--fast", URL_], 'unrecognized argument "--fast"'],
  [["--dial", "me", URL_], 'argument --dial: "me" is no peer id: expected 12D3KooW...'],
  [["--meta", "a\nb=1", URL_], 'argument --meta: "a\\nb=1" is not KEY=VALUE, with a key of letters, digits and . _ / -'],
  [["--meta", "kind=native", URL_], 'argument --meta: "kind=native": kind is said of every worker already'],
  [["--grace", "-1", URL_], 'argument --grace: "-1" is no time: expected seconds, or a number with s, m, h or d'],
  [["--duration-max", "0", URL_], "argument --duration-max: expected a time above 0"],
  [["--memory-max", "many", URL_], 'argument --memory-max: "many" is no size: expected bytes, or a number with K, M, G or T'],
  [["--log", "loud", URL_], 'argument --log: "loud" is not debug, info, warning or error'],
])("%j is refused in one line", (argv, line) => {
  expect(() => readArguments(argv)).toThrow(new WrongUsage(line));
});

test("a gateway's peers come by the same host and port", () => {
  expect(peerUrl(new URL("http://[::1]:80/"))).toBe("ws://[::1]/peer");
  expect(peerUrl(new URL("https://gateway.example.org:8443"))).toBe("wss://gateway.example.org:8443/peer");
});

test("a ticket is read alone or with whom it is of, and never repeated", () => {
  expect(readTicket("wwt1-abc_D-1\n")).toEqual({ ticket: "wwt1-abc_D-1", gateway: null });
  const whole = `/ip4/192.0.2.7/tcp/9100/p2p/${PEER}/ticket/wwt1-abc`;
  expect(readTicket(whole)).toEqual({ ticket: "wwt1-abc", gateway: PEER });
  expect(readTicket(`/p2p/${PEER}/ticket/wwt1-abc`)).toEqual({ ticket: "wwt1-abc", gateway: PEER });
  for (const text of ["", "wwt1-secret wwt1-secret", "secret", "x/p2p/a/ticket/wwt1-secret"]) {
    expect(() => readTicket(text)).toThrow(/^that is no ticket: [^]*$/);
    expect(() => readTicket(text)).not.toThrow(/secret/);
  }
});

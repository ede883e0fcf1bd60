import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { isSigned } from "../../src/identity/proof";
import { BadKeyFile, terminalIdentity } from "../../src/identity/terminal";

// As ww writes it, with the private key 00 01 02 ... 1f.
const PEM = `-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VwBCIEIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f
-----END PRIVATE KEY-----
`;
const PEER = "12D3KooWA4Xop1JaT3MHxwYMkCepYsv4iPVopMXwCz5iHYdBfeSB";

describe("a key in a file", () => {
  let folder = "";
  beforeEach(() => (folder = mkdtempSync(join(tmpdir(), "ww-key-"))));
  afterEach(() => rmSync(folder, { recursive: true }));

  it("is made when it is not there, for nobody else to read, and found again", async () => {
    const file = join(folder, "key");
    const first = await terminalIdentity(file);
    await expect(terminalIdentity(file)).rejects.toThrow("in use by another process");
    first.close();
    expect(statSync(file).mode & 0o777).toBe(0o600);
    const again = await terminalIdentity(file);
    expect(again.peerId).toBe(first.peerId);
    const said = new TextEncoder().encode("said");
    expect(await isSigned(first.peerId, "d", said, Uint8Array.from(await again.sign("d", said)))).toBe(true);
    again.close();
    expect(readFileSync(file, "utf8")).toMatch(/^-----BEGIN PRIVATE KEY-----\n/);
    expect((await terminalIdentity()).peerId).not.toBe((await terminalIdentity()).peerId);
  });

  it("is what ww writes", async () => {
    const file = join(folder, "key");
    writeFileSync(file, PEM, { mode: 0o600 });
    writeFileSync(`${file}.lock`, "999999999\n"); // of a process that is gone
    const found = await terminalIdentity(file);
    expect(found.peerId).toBe(PEER);
    found.close();
  });

  it.each([
    ["readable by others", PEM, 0o644, "expected mode 0600"],
    ["no key", "nonsense", 0o600, "holds no Ed25519 key"],
    ["too large", "x".repeat(5000), 0o600, "holds no Ed25519 key"],
  ])("is refused when it is %s", async (_, text, mode, says) => {
    const file = join(folder, "key");
    writeFileSync(file, text, { mode });
    const failing = terminalIdentity(file);
    await expect(failing).rejects.toThrow(BadKeyFile);
    await expect(failing).rejects.toThrow(says);
    await expect(failing).rejects.not.toThrow(folder);
  });
});

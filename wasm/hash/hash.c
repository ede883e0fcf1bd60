/* The hash puzzle: a guest that exports a function and needs nothing else, no libc and no WASI.
 *
 * run(input, difficulty) counts from 1 and returns the first counter for which the SHA-256 of decimal(input) followed by
 * decimal(counter), in hex, starts with `difficulty` zeros. All are i64: that holds whatever number the gateway takes, and
 * a counter cannot wrap at 2^32. The gateway sends nothing negative; here it would count as 2^64 more. A digest has 64
 * digits: more zeros than that trap.
 * SHA-256: FIPS 180-4. The text is at most 40 digits, so every hash is one block.
 */
typedef unsigned char u8;
typedef unsigned int u32;
typedef unsigned long long u64;

static const u32 K[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
};

static u32 rotate(u32 x, int n) { return (x >> n) | (x << (32 - n)); }

/* Hash one padded block into eight words. */
static void sha256_block(const u8 block[64], u32 digest[8]) {
  static const u32 initial[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
  u32 w[64], s[8];
  for (int t = 0; t < 16; t++)
    w[t] = (u32)block[4 * t] << 24 | (u32)block[4 * t + 1] << 16 | (u32)block[4 * t + 2] << 8 | block[4 * t + 3];
  for (int t = 16; t < 64; t++) {
    u32 s0 = rotate(w[t - 15], 7) ^ rotate(w[t - 15], 18) ^ (w[t - 15] >> 3);
    u32 s1 = rotate(w[t - 2], 17) ^ rotate(w[t - 2], 19) ^ (w[t - 2] >> 10);
    w[t] = w[t - 16] + s0 + w[t - 7] + s1;
  }
  for (int i = 0; i < 8; i++) s[i] = initial[i];
/* Unrolled, K becomes part of the code: an eighth faster, and without a data section at the end of the file there is no
 * place to cut it off unnoticed. */
#pragma clang loop unroll(full)
  for (int t = 0; t < 64; t++) {
    u32 e1 = rotate(s[4], 6) ^ rotate(s[4], 11) ^ rotate(s[4], 25);
    u32 t1 = s[7] + e1 + ((s[4] & s[5]) ^ (~s[4] & s[6])) + K[t] + w[t];
    u32 e0 = rotate(s[0], 2) ^ rotate(s[0], 13) ^ rotate(s[0], 22);
    u32 t2 = e0 + ((s[0] & s[1]) ^ (s[0] & s[2]) ^ (s[1] & s[2]));
    for (int i = 7; i > 0; i--) s[i] = s[i - 1];
    s[4] += t1;
    s[0] = t1 + t2;
  }
  for (int i = 0; i < 8; i++) digest[i] = initial[i] + s[i];
}

/* Write the decimal digits of value to out and return how many there are. */
static int decimal(u64 value, u8 *out) {
  u8 reversed[20];
  int count = 0;
  do {
    reversed[count++] = '0' + value % 10;
    value /= 10;
  } while (value);
  for (int i = 0; i < count; i++) out[i] = reversed[count - 1 - i];
  return count;
}

static int starts_with_zeros(const u32 digest[8], u64 zeros) {
  for (u64 nibble = 0; nibble < zeros; nibble++)
    if (digest[nibble / 8] >> (28 - 4 * (nibble % 8)) & 0xf) return 0;
  return 1;
}

__attribute__((export_name("run"))) u64 run(u64 input, u64 difficulty) {
  if (difficulty > 64) __builtin_trap();
  u8 prefix[20];
  int prefix_length = decimal(input, prefix);
  for (u64 counter = 1;; counter++) {
    u8 block[64] = {0};
    u32 digest[8];
    for (int i = 0; i < prefix_length; i++) block[i] = prefix[i];
    int length = prefix_length + decimal(counter, block + prefix_length);
    block[length] = 0x80;
    block[62] = length * 8 >> 8;
    block[63] = length * 8 & 0xff;
    sha256_block(block, digest);
    if (starts_with_zeros(digest, difficulty)) return counter;
  }
}

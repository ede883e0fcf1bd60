@0xd1f1c3a4b5e60703;
# The first thing said on every connection.

interface Vat {
  # The bootstrap capability. Its one method never changes, in any version, but for fields at its end, so that nodes of
  # any two versions can tell each other why they cannot talk.
  hello @0 (version :UInt32, namespace :Text, ticket :Text) -> (version :UInt32, namespace :Text, exports :Exports, refused :Text);
  # Tell each other who speaks what. exports is null when the two do not fit, or when the caller is not admitted;
  # refused then says why, in one line. ticket is what lets the caller in, where that takes one: a secret between the two.
}

interface Exports {
  connect @0 (name :Text) -> (capability :Capability);
  # What this node exports under that name for the peer that asks. Failures: not_found.
}

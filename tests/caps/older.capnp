@0xd1f1c3a4b5e607f2;
# An interface as a node knew it before newer.capnp: the same ids, fewer fields.

interface Leaf @0xd1f1c3a4b5e607e1 {
  get @0 () -> (name :Text);
}

struct Plain @0xd1f1c3a4b5e607e2 {
  name @0 :Text;
}

interface Giver @0xd1f1c3a4b5e607e3 {
  plain @0 () -> (plain :Plain);
  numbers @1 () -> (numbers :List(UInt64));
}

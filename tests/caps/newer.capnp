@0xd1f1c3a4b5e607f3;
# What became of older.capnp: a struct and the elements of a list have capabilities by now.

interface Leaf @0xd1f1c3a4b5e607e1 {
  get @0 () -> (name :Text);
}

struct Plain @0xd1f1c3a4b5e607e2 {
  name @0 :Text;
  leaf @1 :Leaf;
}

struct Number @0xd1f1c3a4b5e607e4 {
  value @0 :UInt64;
  leaf @1 :Leaf;
}

interface Giver @0xd1f1c3a4b5e607e3 {
  plain @0 () -> (plain :Plain);
  numbers @1 () -> (numbers :List(Number));
}

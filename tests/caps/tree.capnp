@0xd1f1c3a4b5e607f1;
# For tests of membranes: capabilities in every place that a schema has for them.

interface Node {
  who @0 () -> (name :Text);
  secret @1 () -> (name :Text);
  give @2 (where :Text) -> (node :Node, held :Held, nodes :List(Node), many :List(Held), nested :List(List(Node)),
                            any :AnyPointer, untyped :Capability);
  tell @3 (listener :Listener) -> ();
  wait @4 () -> ();
}

interface One {
  get @0 () -> (name :Text);
}

interface Other {
  get @0 () -> (name :Text);
}

interface Both extends(One, Other) {}

interface Base {
  read @0 () -> (name :Text);
}

interface Derived extends(Base) {
  read @0 () -> (name :Text);
}

struct Held {
  label @0 :Text;
  node @1 :Node;
  inner @2 :Held;
  union {
    number @3 :UInt32;
    aNode @4 :Node;
  }
  group :group {
    node @5 :Node;
  }
}

interface Listener {
  hear @0 (node :Node) -> (reply :Node);
}

// What a worker in TypeScript needs of Cap'n Proto: connecting, serving, calling, and letting go of capabilities.
export { type ByteReceiver, type ByteStream, type Traffic } from "./bytes";
export { type CallContext, type Handlers, type Kind, keep, release, serve } from "./capability";
export { answered, cancel } from "./calls";
export { CapabilityError, Cancelled, Disconnected, oneLine } from "./errors";
export { type ConnectOptions, type Link, connectWebSocket } from "./link";
export { capabilitiesOf, initAs, isNull, setCapabilities, structOf } from "./values";

"""Recognition for other programs: an HTTP and WebSocket server, the Wyoming protocol, a page, and the microphone."""

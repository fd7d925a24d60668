"""The test vectors as package data, which bce_bridge.conformance.cases reads. Not needed by those who copy the folder."""

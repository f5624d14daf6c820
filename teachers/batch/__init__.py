"""The services' batch interfaces: half the price, within a day. One file per service; ``connect`` chooses."""

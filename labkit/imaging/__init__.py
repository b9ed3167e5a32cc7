"""From a scan to nine views: volumes, readers and resampling. Knows nothing of datasets or networks."""

"""From a scan to nine views: volumes, readers, resampling; knows no dataset and no network."""

-- How often the detector has blocked a network before: the others have no place in this index.
CREATE INDEX blocks_of_detector ON blocks (network, created_at) WHERE source = 'detector';

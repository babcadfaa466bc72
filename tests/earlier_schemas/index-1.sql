-- The index as version 1 made it, with what it holds of a journal and of records that are others by now.
CREATE TABLE gpu_tenant_index (key TEXT NOT NULL, value TEXT NOT NULL, PRIMARY KEY (key));
CREATE TABLE journal (
  place BIGINT NOT NULL, id TEXT, at TEXT, kind TEXT, verb TEXT, project TEXT, box TEXT, generation INTEGER,
  provider_id TEXT, line TEXT NOT NULL, PRIMARY KEY (place)
);
CREATE INDEX ix_journal_id ON journal (id);
CREATE INDEX ix_journal_at ON journal (at);
CREATE INDEX journal_of_box ON journal (project, box, generation);
CREATE TABLE files (
  path TEXT NOT NULL, kind TEXT, project TEXT, run_id TEXT, box TEXT, generation INTEGER, look TEXT NOT NULL,
  record TEXT NOT NULL, PRIMARY KEY (path)
);
CREATE INDEX ix_files_kind ON files (kind);
INSERT INTO gpu_tenant_index VALUES ('version', '1'), ('place', '17'), ('head_bytes', '17'), ('head', 'of another journal');
INSERT INTO journal VALUES (0, 'i', '2026-11-21T20:00:00Z', 'effect', 'rent', 'p', 'old', 1, '7', '{"box": "old", "project": "p"}');
INSERT INTO files VALUES ('boxes/p/old/g1.json', 'box', 'p', NULL, 'old', 1, '0.0.0', '{"box": "old", "project": "p"}');

-- The table of leases as version 1 made it, with one that is held.
CREATE TABLE IF NOT EXISTS gpu_tenant_leases (
  project text NOT NULL, box text NOT NULL, record text NOT NULL, PRIMARY KEY (project, box)
);
INSERT INTO gpu_tenant_leases VALUES ('p', 'held', '{"box": "held", "displaced": [], "epoch": 4102444800, "granted_at": "2026-11-21T20:00:00Z", "holders": [{"boot_id": "b", "host": "north", "machine": "m", "namespace": "pid:[1]", "pid": 4711, "pid1_start": 1, "start": 2, "user": "kim"}], "nonce": "45c86d0221a7", "project": "p", "purpose": "Rent, deploy and train", "released_at": null, "schema": "gpu-tenant/lease/v1", "until": "2100-01-01T00:00:00Z"}');

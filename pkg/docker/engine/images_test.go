package engine

import "testing"

// TestADigestIsRecordedOnlyWhereARegistryHasIt: what was built here has digests as well
// where the engine keeps images in containerd.
func TestADigestIsRecordedOnlyWhereARegistryHasIt(t *testing.T) {
	const id, sum = "sha256:1111", "sha256:2222"
	for name, c := range map[string]struct {
		digest, raw string
		want        bool
	}{
		"pulled":                             {"ghost@" + sum, `{}`, true},
		"built by podman":                    {"localhost/app@" + sum, `{}`, false},
		"a registry of this host":            {"localhost:5000/app@" + sum, `{}`, true},
		"containerd: nothing known":          {"app@" + id, `{}`, false},
		"containerd: built":                  {"app@" + id, `{"Identity":{"Build":[{"Ref":"x"}]}}`, false},
		"containerd: pulled":                 {"ghost@" + id, `{"Identity":{"Pull":[{"Repository":"docker.io/library/ghost"}]}}`, true},
		"containerd: pulled by another name": {"app@" + id, `{"Identity":{"Pull":[{"Repository":"docker.io/library/ghost"}]}}`, false},
	} {
		if got := pullable(c.digest, id, []byte(c.raw)); got != c.want {
			t.Errorf("%s: %t", name, got)
		}
	}
}

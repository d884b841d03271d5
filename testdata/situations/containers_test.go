package situations

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/tiny-forge/snap/pkg/disk/disktest"
)

// container is one container as docker inspect shows it.
type container struct {
	id, name string
	began    string
	running  bool
	service  string   // of Compose
	oneOff   bool     // made by docker compose run
	hash     string   // of its service's config
	facts    []string // the lines that must be the same afterwards, sorted
}

// run tells one run of a container from all others.
func (c container) run() string { return fmt.Sprint(c.id, c.began, c.running) }

// containers returns all containers of the project, by name.
func (h *host) containers() map[string]container {
	h.Helper()
	list := map[string]container{}
	var found []map[string]any
	if out := h.sh("docker ps -aq --filter name=^/?" + h.project + " | xargs -r docker inspect"); out != "" {
		h.must(json.Unmarshal([]byte(out), &found))
	}
	for _, raw := range found {
		c := container{id: raw["Id"].(string)}
		all := map[string]string{}
		flatten("", raw, func(path, value string) {
			all[path] = value
			line := path + " " + value
			if passing.MatchString(line) {
				return
			}
			line = strings.ReplaceAll(longID.ReplaceAllString(line, "<id>"), c.id[:12], "<own id>")
			// Compose notes as a file "-" that it read an override from its standard input.
			c.facts = append(c.facts, strings.TrimSuffix(line, ",-"))
		})
		slices.Sort(c.facts)
		const label = "Config.Labels.com.docker.compose."
		c.service, c.oneOff, c.hash = all[label+"service"], all[label+"oneoff"] == "True", all[label+"config-hash"]
		c.began, c.running = all["State.StartedAt"], all["State.Running"] == "true"
		c.name = strings.TrimPrefix(all["Name"], "/"+h.project+"-")
		list[c.name] = c
	}
	return list
}

// flatten tells add of each value and of the way to it: "State.Running", "true". For
// the engine, nothing and an empty list are the same.
func flatten(path string, v any, add func(path, value string)) {
	switch v := v.(type) {
	case map[string]any:
		for key, value := range v {
			flatten(strings.TrimPrefix(path+"."+key, "."), value, add)
		}
		if len(v) == 0 {
			add(path, "-")
		}
	case []any:
		for _, value := range v {
			mount, _ := value.(map[string]any) // mounts come in any order
			target, _ := mount["Destination"].(string)
			flatten(path+"."+target, value, add)
		}
		if len(v) == 0 {
			add(path, "-")
		}
	case nil:
		add(path, "-")
	default:
		add(path, fmt.Sprint(v))
	}
}

// passing is what every start gives a container anew: ids, times, addresses.
var passing = regexp.MustCompile(`^(Id|Created|RestartCount|ResolvConfPath|HostnamePath|HostsPath|LogPath|ExecIDs\.?` +
	`|State\.(Pid|StartedAt|FinishedAt|Health\..*)|GraphDriver\..*` +
	`|NetworkSettings\.(Bridge|SandboxID|SandboxKey|EndpointID|Gateway|GlobalIPv6.*|IPAddress|IPPrefixLen|IPv6Gateway|LinkLocal.*|MacAddress|Secondary.*|HairpinMode|Ports\..*\.HostPort)` +
	`|NetworkSettings\.Networks\.[^ ]*\.(EndpointID|Gateway|IPAddress|IPPrefixLen|IPv6Gateway|Global.*|MacAddress|NetworkID|DNSNames.*)` +
	`|Config\.Labels\.com\.docker\.compose\.replace) `)

// ofTheImage is what another image or config gives a container that is made anew.
var ofTheImage = regexp.MustCompile(`^(Image|Config\.Image|Config\.Env\..*|Config\.Labels\.(serial|snap\.image|com\.docker\.compose\.(image|config-hash))) `)

var longID = regexp.MustCompile(`\b[0-9a-f]{64}\b`)

// judge compares the containers with what they were before snap did something.
func (h *host) judge(what string, before, now map[string]container, wanted map[string]end, otherwise end) {
	h.Helper()
	for name := range wanted {
		if _, was := before[name]; !was {
			h.Errorf("%s: situation.yaml speaks of container %s, and there was none", what, name)
		}
	}
	for name, was := range before {
		want, said := wanted[name]
		switch {
		case said:
		case !was.running:
			want = rests
		default:
			want = otherwise
		}
		is, here := now[name]
		if found := ended(was, is, here); found != want {
			h.Errorf("%s: container %s %s, and %q is wanted", what, name, found, want)
			continue
		}
		if want != gone {
			h.sameFacts(what, want, was, is)
		}
	}
	for name, is := range now {
		if _, was := before[name]; !was {
			h.Errorf("%s: container %s is new (running: %t)", what, name, is.running)
		}
	}
}

// ended says how a container ended; in the words of no end, where it is none.
func ended(was, is container, here bool) end {
	switch {
	case !here:
		return gone
	case is.id != was.id && is.running:
		return anew
	case is.id != was.id:
		return "is made anew and does not run"
	case is.run() == was.run() && is.running:
		return untouched
	case is.run() == was.run():
		return rests
	case is.running && was.running:
		return again
	case is.running:
		return started
	case !was.running:
		return failed
	}
	return "does not run any more"
}

func (h *host) sameFacts(what string, want end, was, is container) {
	h.Helper()
	matters := func(lines []string) []string {
		return slices.DeleteFunc(slices.Clone(lines), func(line string) bool {
			return want == anew && ofTheImage.MatchString(line) || (want == started || want == failed) && strings.HasPrefix(line, "State.")
		})
	}
	if d := disktest.Diff(matters(was.facts), matters(is.facts)); d != "" {
		h.Errorf("%s: container %s has changed (- before, + now):\n%s", what, was.name, d)
	}
}

// drift returns the containers that are not as the Compose files say. Compose itself
// brings some up: it hashes "network_mode: service:…" once as it is written, and once
// as the id of the other container.
func (h *host) drift() (names []string) {
	h.Helper()
	list := h.containers()
	for line := range strings.Lines(h.sh("compose config --hash '*'")) {
		service, hash, _ := strings.Cut(strings.TrimSpace(line), " ")
		for _, c := range list {
			if c.service == service && c.hash != hash && !c.oneOff {
				names = append(names, c.name)
			}
		}
	}
	return names
}

// settled runs what must have nothing to do. Some containers had drifted before.
func (h *host) settled(script string, drifted []string) {
	h.Helper()
	for _, name := range h.drift() {
		if !slices.Contains(drifted, name) {
			h.Errorf("after the restore container %s is not as the Compose files say", name)
		}
	}
	before := h.containers()
	h.sh(script)
	now := h.containers()
	for name, was := range before { // docker compose up starts what rests, too
		if is := now[name]; !was.running && is.id == was.id {
			delete(before, name)
			delete(now, name)
		}
	}
	h.judge("after the restore, "+script, before, now, nil, untouched)
}

package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"reflect"
	"regexp"
	"strings"

	"github.com/google/uuid"
)

// site is what is simulated: one vCenter with one distributed switch, its
// hosts, and what is there from the start.
type site struct {
	VCenter          vcenterSpec     `json:"vcenter"`
	APIVersion       string          `json:"api_version"`
	Control          string          `json:"control"`
	DVS              string          `json:"dvs"`
	Hosts            []hostSpec      `json:"hosts"`
	Portgroups       []portgroupSpec `json:"portgroups"`
	StandardNetworks []string        `json:"standard_networks"`
	VMs              []vmSpec        `json:"vms"`
	Pvlans           []pvlanSpec     `json:"pvlans"`
	Datastores       []string        `json:"datastores"`
	Generate         *generateSpec   `json:"generate"`
}

type vcenterSpec struct {
	Listen       string `json:"listen"`
	User         string `json:"user"`
	Password     string `json:"password"`
	InstanceUUID string `json:"instance_uuid"`
}

type hostSpec struct {
	Name     string       `json:"name"`
	Listen   string       `json:"listen"`
	User     string       `json:"user"`
	Password string       `json:"password"`
	Cluster  string       `json:"cluster"`
	VRouter  *vrouterSpec `json:"vrouter"`
}

// vrouterSpec is the VM that forwards for a host: a management NIC on the first
// standard network, then the trunk NIC.
type vrouterSpec struct {
	Name           string `json:"name"`
	SMBIOSUUID     string `json:"smbios_uuid"`
	TrunkMAC       string `json:"trunk_mac"`
	TrunkPortgroup string `json:"trunk_portgroup"`
}

// portgroupSpec has an access VLAN (0: none) or the ranges of a trunk.
type portgroupSpec struct {
	Name  string     `json:"name"`
	VLAN  *int32     `json:"vlan"`
	Trunk [][2]int32 `json:"trunk"`
	Ports int32      `json:"ports"`
}

type vmSpec struct {
	Name       string   `json:"name"`
	Host       string   `json:"host"`
	Networks   []string `json:"networks"`
	Power      string   `json:"power"`
	SMBIOSUUID string   `json:"smbios_uuid"`
}

// siteError names the key that is wrong and what is allowed there.
type siteError struct{ key, problem, allowed string }

func (e *siteError) Error() string {
	return fmt.Sprintf("%s: %s; allowed: %s", e.key, e.problem, e.allowed)
}

const (
	defaultAPIVersion = "8.0.3.0"
	defaultAddress    = "127.0.0.1:0"
	defaultDVS        = "dvs-tf"
	defaultNetwork    = "VM Network"
	defaultPorts      = 8
)

// apiVersion must have four parts: pyVmomi falls back to 6.0 on others.
var apiVersion = regexp.MustCompile(`^\d+\.\d+\.\d+\.\d+$`)

func loadSite(path string) (*site, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	s, err := parseSite(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return s, nil
}

// parseSite reads a site, fills in defaults and checks it.
func parseSite(data []byte) (*site, error) {
	var raw any
	if err := json.Unmarshal(data, &raw); err != nil {
		return nil, fmt.Errorf("not JSON: %w", err)
	}
	if err := checkKeys("", raw, reflect.TypeOf(site{})); err != nil {
		return nil, err
	}
	s := &site{}
	d := json.NewDecoder(bytes.NewReader(data))
	if err := d.Decode(s); err != nil && !errors.Is(err, io.EOF) {
		var wrong *json.UnmarshalTypeError
		if errors.As(err, &wrong) {
			return nil, &siteError{wrong.Field, "is a " + wrong.Value, jsonKind(wrong.Type)}
		}
		return nil, err
	}
	if err := s.generate(); err != nil {
		return nil, err
	}
	s.fillDefaults()
	return s, s.check()
}

// checkKeys refuses keys that the structure does not have.
func checkKeys(path string, value any, t reflect.Type) error {
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch v := value.(type) {
	case []any:
		if t.Kind() != reflect.Slice {
			return nil // the decoder says so
		}
		for i, item := range v {
			if err := checkKeys(fmt.Sprintf("%s[%d]", path, i), item, t.Elem()); err != nil {
				return err
			}
		}
	case map[string]any:
		if t.Kind() != reflect.Struct {
			return nil
		}
		fields := map[string]reflect.Type{}
		var names []string
		for i := range t.NumField() {
			name := t.Field(i).Tag.Get("json")
			fields[name] = t.Field(i).Type
			names = append(names, name)
		}
		for key, item := range v {
			at := strings.TrimPrefix(path+"."+key, ".")
			field, ok := fields[key]
			if !ok {
				return &siteError{at, "unknown key", strings.Join(names, ", ")}
			}
			if err := checkKeys(at, item, field); err != nil {
				return err
			}
		}
	}
	return nil
}

func jsonKind(t reflect.Type) string {
	switch t.Kind() {
	case reflect.String:
		return "a string"
	case reflect.Slice, reflect.Array:
		return "a list"
	case reflect.Struct:
		return "an object"
	case reflect.Int32:
		return "an integer"
	}
	return "a " + t.String()
}

func (s *site) fillDefaults() {
	set := func(dst *string, value string) {
		if *dst == "" {
			*dst = value
		}
	}
	set(&s.APIVersion, defaultAPIVersion)
	set(&s.Control, defaultAddress)
	set(&s.DVS, defaultDVS)
	set(&s.VCenter.Listen, defaultAddress)
	if s.StandardNetworks == nil {
		s.StandardNetworks = []string{defaultNetwork}
	}
	for i := range s.Hosts {
		set(&s.Hosts[i].Listen, defaultAddress)
		set(&s.Hosts[i].Cluster, clusterName)
	}
	for i := range s.Portgroups {
		if s.Portgroups[i].Ports == 0 {
			s.Portgroups[i].Ports = defaultPorts
		}
	}
	for i := range s.VMs {
		set(&s.VMs[i].Power, "off")
	}
}

func (s *site) check() error {
	for _, c := range []func() error{s.checkEndpoints, s.checkPortgroups, s.checkPvlans, s.checkNetworks, s.checkDatastores, s.checkVMs} {
		if err := c(); err != nil {
			return err
		}
	}
	return nil
}

func (s *site) checkEndpoints() error {
	if !apiVersion.MatchString(s.APIVersion) {
		return &siteError{"api_version", fmt.Sprintf("%q", s.APIVersion), "four numbers, like 8.0.3.0"}
	}
	if err := checkAddress("control", s.Control); err != nil {
		return err
	}
	if host, _, _ := net.SplitHostPort(s.Control); !net.ParseIP(host).IsLoopback() {
		return &siteError{"control", fmt.Sprintf("%q", s.Control), "an address on loopback; the control API has no login"}
	}
	if err := checkLogin("vcenter", s.VCenter.Listen, s.VCenter.User, s.VCenter.Password); err != nil {
		return err
	}
	if err := checkUUID("vcenter.instance_uuid", s.VCenter.InstanceUUID, true); err != nil {
		return err
	}
	if len(s.Hosts) == 0 {
		return &siteError{"hosts", "no host", "one or more hosts"}
	}
	names := map[string]bool{vcenterName: true, adminName: true, "*": true}
	for i, h := range s.Hosts {
		key := fmt.Sprintf("hosts[%d]", i)
		if h.Name == "" || names[h.Name] {
			return &siteError{key + ".name", fmt.Sprintf("%q", h.Name), "a name that no other host has, not vcenter, admin or *"}
		}
		names[h.Name] = true
		if err := checkLogin(key, h.Listen, h.User, h.Password); err != nil {
			return err
		}
	}
	return nil
}

func checkLogin(key, listen, user, password string) error {
	if err := checkAddress(key+".listen", listen); err != nil {
		return err
	}
	if user == "" {
		return &siteError{key + ".user", "missing", "a user name"}
	}
	if password == "" {
		return &siteError{key + ".password", "missing", "a password"}
	}
	return nil
}

func checkAddress(key, address string) error {
	host, _, err := net.SplitHostPort(address)
	if err != nil || net.ParseIP(host) == nil {
		return &siteError{key, fmt.Sprintf("%q", address), "an IP address and a port, like 127.0.0.1:0"}
	}
	return nil
}

func checkUUID(key, value string, optional bool) error {
	if value == "" && optional {
		return nil
	}
	if _, err := uuid.Parse(value); err != nil || len(value) != len(uuid.Nil.String()) {
		return &siteError{key, fmt.Sprintf("%q", value), "a uuid, like 42160000-0000-4000-8000-000000000001"}
	}
	return nil
}

func (s *site) checkPortgroups() error {
	names := map[string]bool{strings.ToLower(s.DVS): true}
	for i, g := range s.Portgroups {
		key := fmt.Sprintf("portgroups[%d]", i)
		if g.Name == "" || names[strings.ToLower(g.Name)] {
			return &siteError{key + ".name", fmt.Sprintf("%q", g.Name), "a name that nothing else on the switch has, in any case"}
		}
		names[strings.ToLower(g.Name)] = true
		if g.VLAN != nil && g.Trunk != nil {
			return &siteError{key, "has both vlan and trunk", "one of them"}
		}
		if g.VLAN != nil && (*g.VLAN < 0 || *g.VLAN > 4094) {
			return &siteError{key + ".vlan", fmt.Sprint(*g.VLAN), "0 to 4094"}
		}
		for j, r := range g.Trunk {
			if r[0] < 0 || r[1] > 4094 || r[0] > r[1] {
				return &siteError{fmt.Sprintf("%s.trunk[%d]", key, j), fmt.Sprint(r), "[first, last] within 0 to 4094"}
			}
		}
		if g.Ports < 0 {
			return &siteError{key + ".ports", fmt.Sprint(g.Ports), "1 or more"}
		}
	}
	return nil
}

func (s *site) checkNetworks() error {
	names := map[string]bool{}
	for _, g := range s.Portgroups {
		names[strings.ToLower(g.Name)] = true
	}
	for i, n := range s.StandardNetworks {
		if n == "" || names[strings.ToLower(n)] {
			return &siteError{fmt.Sprintf("standard_networks[%d]", i), fmt.Sprintf("%q", n), "a name that no other network or portgroup has"}
		}
		names[strings.ToLower(n)] = true
	}
	return nil
}

func (s *site) checkDatastores() error {
	names := map[string]bool{datastoreName: true}
	for i, n := range s.Datastores {
		if n == "" || names[n] || strings.ContainsAny(n, "/[]") {
			return &siteError{
				fmt.Sprintf("datastores[%d]", i), fmt.Sprintf("%q", n), "a name that no other datastore has (there is always " + datastoreName + "), without / [ ]",
			}
		}
		names[n] = true
	}
	return nil
}

// isPortgroup tells whether a network is a portgroup of the distributed switch.
func (s *site) isPortgroup(name string) bool {
	for _, g := range s.Portgroups {
		if g.Name == name {
			return true
		}
	}
	return false
}

func (s *site) checkVMs() error {
	networks := append([]string(nil), s.StandardNetworks...)
	for _, g := range s.Portgroups {
		networks = append(networks, g.Name)
	}
	var hosts []string
	for _, h := range s.Hosts {
		hosts = append(hosts, h.Name)
	}
	names := map[string]bool{}
	for i, h := range s.Hosts {
		if h.VRouter == nil {
			continue
		}
		if err := s.checkVRouter(fmt.Sprintf("hosts[%d].vrouter", i), h.VRouter, names); err != nil {
			return err
		}
	}
	for i, vm := range s.VMs {
		key := fmt.Sprintf("vms[%d]", i)
		if vm.Name == "" || names[strings.ToLower(vm.Name)] {
			return &siteError{key + ".name", fmt.Sprintf("%q", vm.Name), "a name that no other VM has"}
		}
		names[strings.ToLower(vm.Name)] = true
		if err := oneOf(key+".host", vm.Host, hosts); err != nil {
			return err
		}
		if err := oneOf(key+".power", vm.Power, []string{"on", "off"}); err != nil {
			return err
		}
		for j, n := range vm.Networks {
			if err := oneOf(fmt.Sprintf("%s.networks[%d]", key, j), n, networks); err != nil {
				return err
			}
		}
		if err := checkUUID(key+".smbios_uuid", vm.SMBIOSUUID, true); err != nil {
			return err
		}
	}
	return nil
}

func (s *site) checkVRouter(key string, r *vrouterSpec, names map[string]bool) error {
	if r.Name == "" || names[strings.ToLower(r.Name)] {
		return &siteError{key + ".name", fmt.Sprintf("%q", r.Name), "a name that no other VM has"}
	}
	names[strings.ToLower(r.Name)] = true
	if err := checkUUID(key+".smbios_uuid", r.SMBIOSUUID, false); err != nil {
		return err
	}
	if mac, err := net.ParseMAC(r.TrunkMAC); err != nil || len(mac) != 6 || mac.String() != r.TrunkMAC {
		return &siteError{key + ".trunk_mac", fmt.Sprintf("%q", r.TrunkMAC), "a MAC address, like 00:50:56:00:00:01"}
	}
	var trunks []string
	for _, g := range s.Portgroups {
		if g.Trunk != nil {
			trunks = append(trunks, g.Name)
		}
	}
	if err := oneOf(key+".trunk_portgroup", r.TrunkPortgroup, trunks); err != nil {
		return err
	}
	if len(s.StandardNetworks) == 0 {
		return &siteError{"standard_networks", "empty", "one or more networks: the vRouter VM's management NIC is on the first"}
	}
	return nil
}

func oneOf(key, value string, allowed []string) error {
	for _, a := range allowed {
		if a == value {
			return nil
		}
	}
	list := strings.Join(allowed, ", ")
	if list == "" {
		list = "nothing: the site has none"
	}
	return &siteError{key, fmt.Sprintf("%q", value), list}
}

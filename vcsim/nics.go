package main

import (
	"context"
	"reflect"
	"slices"
	"strings"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"
)

// The NIC table: every virtual NIC of the site with what decides about its
// frames. A lab's switch follows it through the control API instead of
// polling the vSphere API.

// nicTable holds the NICs by VM. It is guarded by vcenter.mu.
type nicTable struct {
	byVM       map[ref][]nicRecord
	generation int64
	changed    chan struct{} // closed at the next change
}

// nicRecord is what the VM itself says about a NIC.
type nicRecord struct {
	vm           ref
	vmName       string
	instanceUUID string
	host         ref
	power        types.VirtualMachinePowerState
	key          int32
	mac          string
	connected    bool
	network      string // of a standard switch
	port         *types.DistributedVirtualSwitchPortConnection
}

// nicView is a NIC as the control API shows it.
type nicView struct {
	VM              string    `json:"vm"`
	VMName          string    `json:"vm_name"`
	InstanceUUID    string    `json:"instance_uuid"`
	Host            string    `json:"host"`
	Power           string    `json:"power"`
	DeviceKey       int32     `json:"device_key"`
	MAC             string    `json:"mac"`
	Connected       bool      `json:"connected"`
	Switch          string    `json:"switch"`
	Network         string    `json:"network"`
	DVS             string    `json:"dvs"`
	PortgroupKey    string    `json:"portgroup_key"`
	DVPortKey       string    `json:"dvport_key"`
	VLAN            *vlanView `json:"vlan"`
	Blocked         bool      `json:"blocked"`
	LinkUp          bool      `json:"link_up"`
	ForgedTransmits bool      `json:"forged_transmits"`
	MACChanges      bool      `json:"mac_changes"`
	Promiscuous     bool      `json:"promiscuous"`
}

// vlanView is either one access VLAN or the ranges of a trunk.
type vlanView struct {
	Access *int32     `json:"access,omitempty"`
	Trunk  [][2]int32 `json:"trunk,omitempty"`
}

// nicsView is the answer of GET /nics.
type nicsView struct {
	Generation int64     `json:"generation"`
	NICs       []nicView `json:"nics"`
}

func newNicTable() nicTable {
	return nicTable{byVM: map[ref][]nicRecord{}, changed: make(chan struct{})}
}

// touch makes a new generation.
func (t *nicTable) touch() {
	t.generation++
	close(t.changed)
	t.changed = make(chan struct{})
}

// record takes over the NICs of a VM whose lock is held.
func (t *nicTable) record(vm *mo.VirtualMachine) {
	var records []nicRecord
	for _, d := range vm.Config.Hardware.Device {
		c, ok := d.(types.BaseVirtualEthernetCard)
		if !ok {
			continue
		}
		card := c.GetVirtualEthernetCard()
		r := nicRecord{
			vm: vm.Self, vmName: vm.Name, instanceUUID: vm.Config.InstanceUuid, host: *vm.Runtime.Host,
			power: vm.Runtime.PowerState, key: card.Key, mac: card.MacAddress,
			connected: card.Connectable != nil && card.Connectable.Connected,
		}
		switch b := card.Backing.(type) {
		case *types.VirtualEthernetCardDistributedVirtualPortBackingInfo:
			port := b.Port
			r.port = &port
		case *types.VirtualEthernetCardNetworkBackingInfo:
			r.network = b.DeviceName
		default:
			continue
		}
		records = append(records, r)
	}
	slices.SortFunc(records, func(a, b nicRecord) int { return int(a.key - b.key) })
	if !reflect.DeepEqual(records, t.byVM[vm.Self]) {
		t.byVM[vm.Self] = records
		t.touch()
	}
}

func (t *nicTable) forget(vm ref) {
	if _, ok := t.byVM[vm]; ok {
		delete(t.byVM, vm)
		t.touch()
	}
}

// nicsAfter returns the NICs as soon as their generation is above after, or
// when ctx is done.
func (v *vcenter) nicsAfter(ctx context.Context, after int64) nicsView {
	for {
		v.mu.Lock()
		changed := v.nics.changed
		if v.nics.generation > after || ctx.Err() != nil {
			view := v.viewNics()
			v.mu.Unlock()
			return view
		}
		v.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
		}
	}
}

// viewNics shows all NICs in a stable order; v.mu is held.
func (v *vcenter) viewNics() nicsView {
	view := nicsView{Generation: v.nics.generation, NICs: []nicView{}}
	for _, records := range v.nics.byVM {
		for i := range records {
			view.NICs = append(view.NICs, v.viewNic(&records[i]))
		}
	}
	slices.SortFunc(view.NICs, func(a, b nicView) int {
		if c := strings.Compare(a.VM, b.VM); c != 0 {
			return c
		}
		return int(a.DeviceKey - b.DeviceKey)
	})
	return view
}

func (v *vcenter) viewNic(r *nicRecord) nicView {
	n := nicView{
		VM: r.vm.Value, VMName: r.vmName, InstanceUUID: r.instanceUUID, Power: string(r.power),
		DeviceKey: r.key, MAC: r.mac, Connected: r.connected,
	}
	if host := lookup[*simulator.HostSystem](v.registry, r.host); host != nil {
		n.Host = host.Name
	}
	on := r.power == types.VirtualMachinePowerStatePoweredOn
	if r.port == nil {
		n.Switch, n.Network, n.LinkUp = "standard", r.network, on && r.connected
		// A standard switch accepts both by default.
		n.ForgedTransmits, n.MACChanges = true, true
		return n
	}
	n.Switch, n.PortgroupKey = "dvs", r.port.PortgroupKey
	s, g := v.portgroupByKey(r.port.PortgroupKey)
	if g == nil {
		return n
	}
	n.DVS, n.Network = s.name, g.name
	p := s.portOf(nicID{r.vm, r.key})
	if p == nil {
		n.Blocked = true // no port: the NIC reaches nothing
		return n
	}
	setting := effectiveSetting(g.inherited, p.override)
	n.DVPortKey, n.LinkUp = p.key, p.linkUp
	n.Blocked = isTrue(setting.Blocked)
	n.VLAN = viewVlan(setting.Vlan)
	n.ForgedTransmits, n.MACChanges, n.Promiscuous = securityOf(setting)
	return n
}

func viewVlan(vlan types.BaseVmwareDistributedVirtualSwitchVlanSpec) *vlanView {
	ranges, trunk := vlanRanges(vlan)
	if !trunk {
		var access int32
		if len(ranges) != 0 {
			access = ranges[0].Start
		}
		return &vlanView{Access: &access}
	}
	view := &vlanView{Trunk: [][2]int32{}}
	for _, r := range ranges {
		view.Trunk = append(view.Trunk, [2]int32{r.Start, r.End})
	}
	return view
}

// securityOf reads the security policy; the newer macManagementPolicy wins over
// the deprecated securityPolicy (vSphere API reference, VMwareDVSPortSetting).
func securityOf(s *types.VMwareDVSPortSetting) (forged, changes, promiscuous bool) {
	if p := s.SecurityPolicy; p != nil {
		forged, changes, promiscuous = isTrue(p.ForgedTransmits), isTrue(p.MacChanges), isTrue(p.AllowPromiscuous)
	}
	if p := s.MacManagementPolicy; p != nil {
		for _, f := range []struct {
			set *bool
			dst *bool
		}{{p.ForgedTransmits, &forged}, {p.MacChanges, &changes}, {p.AllowPromiscuous, &promiscuous}} {
			if f.set != nil {
				*f.dst = *f.set
			}
		}
	}
	return forged, changes, promiscuous
}

package main

import (
	"fmt"
	"slices"
	"time"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"
)

// Connecting NICs to ports. Stock stores a NIC's backing and nothing else; here
// the ports follow the NICs of every VM.

const (
	earlyBinding = string(types.DistributedVirtualPortgroupPortgroupTypeEarlyBinding)
	lateBinding  = string(types.DistributedVirtualPortgroupPortgroupTypeLateBinding)
	ephemeral    = string(types.DistributedVirtualPortgroupPortgroupTypeEphemeral)
)

// dvNic is a NIC with a distributed port backing.
type dvNic struct {
	card *types.VirtualEthernetCard
	port *types.DistributedVirtualSwitchPortConnection
}

// dvNics are the NICs on distributed switches, by device key.
func dvNics(devices []types.BaseVirtualDevice) map[int32]dvNic {
	nics := map[int32]dvNic{}
	for _, d := range devices {
		if c, ok := d.(types.BaseVirtualEthernetCard); ok {
			card := c.GetVirtualEthernetCard()
			if b, ok := card.Backing.(*types.VirtualEthernetCardDistributedVirtualPortBackingInfo); ok {
				nics[card.Key] = dvNic{card, &b.Port}
			}
		}
	}
	return nics
}

// portChanges collects what follows from a change of ports.
type portChanges struct {
	events  []types.BaseEvent
	touched map[string]bool // portgroups with other ports or other connected VMs
}

func newPortChanges() *portChanges { return &portChanges{touched: map[string]bool{}} }

// connectNics brings the ports in line with the NICs of vm. It runs from
// UpdateObject with the VM's lock held, so it covers every way to change a VM
// (create, clone, register, import, reconfigure, power, relocate). Port key and
// connection cookie are written into the device's backing in place.
func (v *vcenter) connectNics(vm *mo.VirtualMachine) {
	if vm.Config == nil || vm.Runtime.Host == nil {
		return
	}
	changes := newPortChanges()
	want := dvNics(vm.Config.Hardware.Device)

	v.mu.Lock()
	for _, d := range vm.Config.Hardware.Device {
		if c, ok := d.(types.BaseVirtualEthernetCard); ok {
			v.assignMAC(vm, c.GetVirtualEthernetCard())
		}
	}
	v.releasePorts(vm, want, changes)
	for _, key := range sortedKeys(want) {
		v.connectNic(vm, key, want[key], changes)
	}
	v.nics.record(vm)
	v.mu.Unlock()

	v.publish(changes)
}

func poweredOn(vm *mo.VirtualMachine) bool {
	return vm.Runtime.PowerState == types.VirtualMachinePowerStatePoweredOn
}

// releasePorts frees the ports that the VM no longer uses.
func (v *vcenter) releasePorts(vm *mo.VirtualMachine, want map[int32]dvNic, changes *portChanges) {
	for _, s := range v.switches {
		for _, p := range s.ports {
			if p.nic == nil || p.nic.vm != vm.Self {
				continue
			}
			nic, ok := want[p.nic.key]
			binding := s.portgroups[p.portgroup].binding
			uses := ok && nic.port.SwitchUuid == s.uuid && nic.port.PortgroupKey == p.portgroup &&
				(nic.port.PortKey == "" || nic.port.PortKey == p.key)
			if uses && (poweredOn(vm) || binding != ephemeral) {
				continue
			}
			v.disconnect(s, p, changes)
			if uses {
				nic.port.PortKey, nic.port.ConnectionCookie = "", 0
			}
		}
	}
}

// connectNic gives a NIC its port, if one is to be had, and notes its state there.
func (v *vcenter) connectNic(vm *mo.VirtualMachine, key int32, nic dvNic, changes *portChanges) {
	s := v.switchByUUID(nic.port.SwitchUuid)
	if s == nil {
		return
	}
	id := nicID{vm.Self, key}
	p := s.portOf(id)
	if p == nil {
		if p = s.choosePort(nic.port, poweredOn(vm), changes); p == nil {
			nic.port.PortKey, nic.port.ConnectionCookie = "", 0
			return
		}
		s.cookie++
		p.nic, p.cookie, p.changedAt = &id, firstCookie+s.cookie, time.Now()
		changes.touched[p.portgroup] = true
		changes.events = append(changes.events, &types.DvsPortConnectedEvent{
			DvsEvent: v.switchEvent(s), PortKey: p.key, Connectee: p.connectee(),
		})
	}
	up := poweredOn(vm) && nic.card.Connectable != nil && nic.card.Connectable.Connected
	if up != p.linkUp {
		p.changedAt = time.Now()
		if up {
			changes.events = append(changes.events, &types.DvsPortLinkUpEvent{DvsEvent: v.switchEvent(s), PortKey: p.key})
		} else {
			changes.events = append(changes.events, &types.DvsPortLinkDownEvent{DvsEvent: v.switchEvent(s), PortKey: p.key})
		}
	}
	host := *vm.Runtime.Host
	p.host, p.linkUp, p.mac = &host, up, nic.card.MacAddress
	p.peer = fmt.Sprintf("%s.eth%d", vm.Name, key-firstNicKey)
	nic.port.PortKey, nic.port.ConnectionCookie = p.key, p.cookie
}

// choosePort picks a free port for a new connection: the one asked for, else
// the first free one, else a new one where the portgroup may grow. Late binding
// and ephemeral portgroups connect running VMs only.
func (s *dvswitch) choosePort(c *types.DistributedVirtualSwitchPortConnection, on bool, changes *portChanges) *dvport {
	g := s.portgroups[c.PortgroupKey]
	if g == nil {
		return nil
	}
	if p := s.ports[c.PortKey]; p != nil && p.nic == nil && p.portgroup == g.key {
		return p
	}
	grow := 0
	switch g.binding {
	case ephemeral:
		grow = 1
	case lateBinding:
	default:
		if g.autoExpand {
			grow = autoExpandStep
		}
	}
	if !on && g.binding != earlyBinding {
		return nil
	}
	if p := s.free(g); p != nil {
		return p
	}
	if grow == 0 {
		return nil
	}
	s.grow(g, grow)
	changes.touched[g.key] = true
	return s.free(g)
}

// disconnect frees p; it honours portConfigResetAtDisconnect unless it is told not to.
func (v *vcenter) disconnect(s *dvswitch, p *dvport, changes *portChanges) {
	changes.touched[p.portgroup] = true
	changes.events = append(changes.events, &types.DvsPortDisconnectedEvent{
		DvsEvent: v.switchEvent(s), PortKey: p.key, Connectee: p.connectee(),
	})
	p.nic, p.cookie, p.host, p.linkUp, p.mac, p.peer, p.changedAt = nil, 0, nil, false, "", "", time.Now()
	g := s.portgroups[p.portgroup]
	if g.policy.PortConfigResetAtDisconnect && !v.keepsPorts.Load() {
		p.reset()
	}
	if g.binding == ephemeral {
		s.removePort(p)
	}
}

// disconnectVM frees everything that a removed VM had.
func (v *vcenter) disconnectVM(vm ref) {
	changes := newPortChanges()
	v.mu.Lock()
	for _, s := range v.switches {
		for _, p := range s.ports {
			if p.nic != nil && p.nic.vm == vm {
				v.disconnect(s, p, changes)
			}
		}
	}
	for mac, n := range v.macs {
		if n.vm == vm {
			delete(v.macs, mac)
		}
	}
	v.nics.forget(vm)
	v.mu.Unlock()
	v.publish(changes)
}

// publish queues what follows from a change of ports: vm lists and port keys of
// the portgroups, then the events.
func (v *vcenter) publish(changes *portChanges) {
	for key := range changes.touched {
		if v.lists.enter(key) {
			v.worker.later(func(ctx *simulator.Context) {
				v.lists.leave(key)
				v.publishPortgroup(ctx, key)
			})
		}
	}
	if len(changes.events) != 0 {
		v.postLater(changes.events...)
	}
}

func (v *vcenter) publishPortgroup(ctx *simulator.Context, key string) {
	pg := lookup[*simulator.DistributedVirtualPortgroup](v.registry, ref{Type: "DistributedVirtualPortgroup", Value: key})
	if pg == nil {
		return
	}
	ctx.WithLock(pg, func() {
		v.mu.Lock()
		s, g := v.portgroupByKey(key)
		if g == nil {
			v.mu.Unlock()
			return
		}
		keys := slices.Clone(g.ports)
		vms := []ref{}
		seen := map[ref]bool{}
		for _, k := range keys {
			if p := s.ports[k]; p.nic != nil && !seen[p.nic.vm] {
				seen[p.nic.vm] = true
				vms = append(vms, p.nic.vm)
			}
		}
		v.mu.Unlock()
		update := []types.PropertyChange{{Name: "vm", Val: vms}}
		if !slices.Equal(keys, pg.PortKeys) {
			cfg := pg.Config
			cfg.NumPorts = int32(len(keys))
			update = append(update,
				types.PropertyChange{Name: "portKeys", Val: keys},
				types.PropertyChange{Name: "config", Val: cfg})
		}
		ctx.Update(pg, update)
	})
}

// assignMAC gives a NIC an address of its own. Stock clones keep the MAC of
// their source; an address set by hand is kept even if it repeats.
func (v *vcenter) assignMAC(vm *mo.VirtualMachine, c *types.VirtualEthernetCard) {
	manual := string(types.VirtualEthernetCardMacTypeManual)
	if c.AddressType == "" || c.AddressType == string(types.VirtualEthernetCardMacTypeGenerated) {
		c.AddressType = string(types.VirtualEthernetCardMacTypeAssigned)
	}
	id := nicID{vm.Self, c.Key}
	owner, used := v.macs[c.MacAddress]
	if c.MacAddress == "" || used && owner != id && c.AddressType != manual {
		c.MacAddress = v.freeMAC()
		if vm.Guest != nil {
			for i := range vm.Guest.Net {
				if vm.Guest.Net[i].DeviceConfigId == c.Key {
					vm.Guest.Net[i].MacAddress = c.MacAddress
				}
			}
		}
	}
	v.macs[c.MacAddress] = id
}

// freeMAC is an address that no NIC has, from the range that vCenter assigns:
// 00:50:56:80:00:00 to 00:50:56:bf:ff:ff.
func (v *vcenter) freeMAC() string {
	for {
		v.lastMAC++
		n := v.lastMAC
		mac := fmt.Sprintf("00:50:56:%02x:%02x:%02x", 0x80|(n>>16)&0x3f, (n>>8)&0xff, n&0xff)
		if _, used := v.macs[mac]; !used {
			return mac
		}
	}
}

func sortedKeys[V any](m map[int32]V) []int32 {
	keys := make([]int32, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
